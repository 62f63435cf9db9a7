# SPDX-License-Identifier: Apache-2.0
"""The decoder's loss compared with plain differentiation through the logits of all exits at once;
loss weights, metrics and the exit loss."""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.losses import TokenTerms, decoder_loss, exit_loss, exit_loss_weights, token_metrics
from tests.tiny import assert_all_close, random_array, tiny_config

X, B, T, D, V = 3, 5, 7, 4, 13
KINDS = ["shared", "per_exit", "shared, pre-norm", "per_exit, pre-norm"]

TARGET = jnp.asarray(np.random.default_rng(0).integers(0, V, (B, T)))
STATES = random_array(1, X, B, T, D)
# Some tokens count at no exit, some only at a few.
TOKEN_WEIGHTS = jnp.maximum(random_array(2, X, B, T), 0)


def classifiers_of(kind: str) -> dict[str, Any]:
    """Random weights for the classifiers of all exits."""
    if kind.startswith("shared"):
        weights = {"shared": {"table": random_array(3, V, D)}, "per_exit": {}}
    else:
        weights = {"shared": {}, "per_exit": {"table": random_array(3, X, V, D)}}
    if kind.endswith("pre-norm"):
        weights["per_exit"] |= {"scale": random_array(4, X, D), "bias": random_array(5, X, D)}
    return weights


def naive_loss(
    classifiers: dict[str, Any],
    states: jax.Array,
    target: jax.Array,
    token_weights: jax.Array,
    label_smoothing: float,
) -> tuple[jax.Array, TokenTerms]:
    """Computes `decoder_loss` by its definition, from logits [X, B, T, V]."""
    weights = classifiers["shared"] | classifiers["per_exit"]
    if "scale" in weights:
        centred = states - states.mean(axis=-1, keepdims=True)
        deviation = jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-6)
        scale, bias = (weights[name][:, None, None] for name in ("scale", "bias"))
        states = centred / deviation * scale + bias
    tables = jnp.broadcast_to(weights["table"], (X, V, D))
    logits = jnp.einsum("xbtd,xvd->xbtv", states, tables)
    log_probs = jax.nn.log_softmax(logits)
    reference = jax.nn.one_hot(target, V)[None]
    smoothed = (1 - label_smoothing) * reference + label_smoothing / V
    loss = -jnp.sum(token_weights[..., None] * smoothed * log_probs)
    token_ll = jnp.sum(reference * log_probs, axis=-1)
    likeliest = logits.argmax(axis=-1)
    return loss, TokenTerms(token_ll, likeliest == target[None], likeliest)


@functools.partial(jax.jit, static_argnums=(0, 4))
def value_and_gradients(loss, classifiers, states, factor=1.0, label_smoothing=0.1):
    """`factor` times the loss, its terms, and the gradients of classifiers and states."""

    def scaled(classifiers, states):
        value, terms = loss(classifiers, states, TARGET, TOKEN_WEIGHTS, label_smoothing)
        return factor * value, terms

    return jax.value_and_grad(scaled, argnums=(0, 1), has_aux=True)(classifiers, states)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_terms_and_gradients_equal_plain_differentiation(kind, label_smoothing):
    arguments = (classifiers_of(kind), STATES, 1.0, label_smoothing)
    actual = value_and_gradients(decoder_loss, *arguments)
    assert_all_close(actual, value_and_gradients(naive_loss, *arguments))
    correct = np.asarray(actual[0][1].correct)
    assert 0 < correct.mean() < 1


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["shared", "per_exit, pre-norm"])
def test_the_loss_is_the_same_without_differentiation(kind, label_smoothing):
    arguments = (classifiers_of(kind), STATES, TARGET, TOKEN_WEIGHTS, label_smoothing)
    actual = jax.jit(decoder_loss, static_argnums=4)(*arguments)
    assert_all_close(actual, jax.jit(naive_loss, static_argnums=4)(*arguments))


def test_a_factor_on_the_loss_scales_its_gradients():
    classifiers = classifiers_of("per_exit, pre-norm")
    _, gradients = value_and_gradients(decoder_loss, classifiers, STATES)
    _, threefold = value_and_gradients(decoder_loss, classifiers, STATES, 3.0)
    assert_all_close(threefold, jax.tree.map(lambda g: 3 * g, gradients))


def test_no_gradient_flows_through_the_terms():
    def ll(states: jax.Array) -> jax.Array:
        classifiers = classifiers_of("shared")
        _, terms = decoder_loss(classifiers, states, TARGET, TOKEN_WEIGHTS, 0.1)
        return terms.token_ll.sum()

    np.testing.assert_array_equal(jax.jit(jax.grad(ll))(STATES), jnp.zeros_like(STATES))


def test_tokens_of_weight_zero_get_no_gradient():
    assert 0 < (TOKEN_WEIGHTS == 0).mean() < 1
    _, (_, to_states) = value_and_gradients(decoder_loss, classifiers_of("shared"), STATES)
    touched = (np.asarray(to_states) != 0).any(axis=-1)
    np.testing.assert_array_equal(touched, TOKEN_WEIGHTS > 0)


def test_bfloat16_states_give_a_float32_loss_and_bfloat16_gradients():
    (loss, terms), (to_classifiers, to_states) = value_and_gradients(
        decoder_loss, classifiers_of("shared"), STATES.astype(jnp.bfloat16)
    )
    dtypes = [x.dtype for x in (loss, terms.token_ll, to_states, *jax.tree.leaves(to_classifiers))]
    assert dtypes == [jnp.float32, jnp.float32, jnp.bfloat16, jnp.float32]


def test_bfloat16_states_multiply_in_bfloat16_without_scatters():
    """One product forward and two backward; the gradient of a look-up would be a scatter."""
    states = STATES.astype(jnp.bfloat16)
    lowered = value_and_gradients.lower(decoder_loss, classifiers_of("shared"), states)
    program = lowered.as_text()
    products = re.findall(r"dot_general.*: \(.*x(\w+)>, .*x(\w+)>\) -> .*x(\w+)>", program)
    assert products == [("bf16", "bf16", "f32")] * 3
    assert "scatter" not in program


def test_bfloat16_gradients_are_close_to_float32():
    classifiers, states = classifiers_of("shared, pre-norm"), STATES.astype(jnp.bfloat16)
    _, rounded = value_and_gradients(decoder_loss, classifiers, states)
    _, exact = value_and_gradients(decoder_loss, classifiers, states.astype(jnp.float32))
    for actual, expected in zip(*map(jax.tree.leaves, (rounded, exact)), strict=True):
        error = np.abs(np.asarray(actual, np.float32) - expected).max()
        assert 0 < error < 0.02 * np.abs(expected).max()


def largest_array(loss, kind: str) -> int:
    """The size of the largest array in the optimised program of value and gradients."""
    lowered = value_and_gradients.lower(loss, classifiers_of(kind), STATES)
    text = lowered.compile().as_text() or ""
    shapes = re.findall(r"\b(?:pred|bf16|[fsu]\d+)\[([\d,]*)\]", text)
    return max(math.prod(map(int, shape.split(","))) for shape in shapes if shape)


@pytest.mark.parametrize("kind", ["shared", "per_exit, pre-norm"])
def test_the_logits_of_all_exits_never_exist_at_once(kind):
    assert B * T * V <= largest_array(decoder_loss, kind) < X * B * T * V
    assert largest_array(naive_loss, kind) >= X * B * T * V  # which the naive loss would need


@pytest.mark.parametrize("kind", ["shared", "per_exit, pre-norm"])
def test_nothing_of_the_size_of_one_exits_logits_is_kept_for_the_next_exit(kind):
    """XLA would hoist the one-hot targets out of the loop over exits, and keep them."""
    program = value_and_gradients.lower(decoder_loss, classifiers_of(kind), STATES).compile()
    carried = re.findall(r"= \(?(.*)\)? while\(", program.as_text() or "")
    shapes = re.findall(r"\[([\d,]+)\]", " ".join(carried))
    sizes = [math.prod(map(int, shape.split(","))) for shape in shapes]
    assert X * B * T * D in sizes  # the states
    assert B * T * V not in sizes


@pytest.mark.parametrize("kind", ["shared", "per_exit, pre-norm"])
def test_the_likeliest_tokens_are_not_searched_for_where_nobody_reads_them(kind):
    """Only the agreement oracle does; its search is the only minimum."""

    def program(fields: tuple[str, ...]) -> str:
        def some_terms(classifiers, states):
            loss, terms = decoder_loss(classifiers, states, TARGET, TOKEN_WEIGHTS, 0.1)
            return loss, [getattr(terms, name) for name in fields]

        step = jax.jit(jax.value_and_grad(some_terms, argnums=(0, 1), has_aux=True))
        return step.lower(classifiers_of(kind), STATES).compile().as_text() or ""

    assert " minimum(" in program(TokenTerms._fields)
    assert " minimum(" not in program(("token_ll", "correct"))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("1", [0.25, 0.25, 0.25, 0.25]),
        ("n", [0.1, 0.2, 0.3, 0.4]),
        ("sqrt_n", [0.1627005, 0.2300932, 0.2818054, 0.3254009]),
        ("1/sqrt_n", [0.3591364, 0.2539478, 0.2073475, 0.1795682]),
        ("1/n", [0.48, 0.24, 0.16, 0.12]),
    ],
)
def test_loss_weights_of_four_exits(kind, expected):
    depths = tiny_config(model={"decoder_layers": 4}).model.exit_depths
    np.testing.assert_allclose(exit_loss_weights(kind, depths), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["1", "n", "sqrt_n", "1/sqrt_n", "1/n"])
def test_a_single_exit_has_weight_one(kind):
    depths = tiny_config(model={"decoder_layers": 4, "exits": "last"}).model.exit_depths
    assert exit_loss_weights(kind, depths).tolist() == [1.0]


def test_token_metrics_cover_the_tokens_that_count_at_an_exit():
    terms = TokenTerms(
        token_ll=jnp.asarray([[[-1.0, -2.0], [-4.0, -99.0]], [[-0.5, -0.5], [-3.0, -99.0]]]),
        correct=jnp.asarray([[[True, False], [False, True]], [[True, True], [False, True]]]),
        likeliest=jnp.zeros((2, 2, 2), jnp.int32),
    )
    counted = jnp.asarray([[[True, True], [True, False]], [[False, True], [True, False]]])
    metrics = token_metrics(terms, counted)
    assert metrics.keys() == {"nll", "accuracy"}
    np.testing.assert_array_equal(metrics["nll"].total, [7, 3.5])
    np.testing.assert_array_equal(metrics["accuracy"].total, [1, 1])
    for mean in metrics.values():
        np.testing.assert_array_equal(mean.count, [3, 2])


@pytest.mark.parametrize("shape", [(B,), (B, T)], ids=["sentences", "tokens"])
def test_exit_loss_equals_the_cross_entropy_with_the_oracle(shape):
    generator = np.random.default_rng(6)
    q = generator.dirichlet(np.ones(X), shape)
    oracle = 1 + np.arange(math.prod(shape)).reshape(shape) % X
    weights = generator.integers(0, 3, shape)
    expected = 0.0
    for index in np.ndindex(*shape):
        expected -= weights[index] * math.log(q[index][oracle[index] - 1])
    log_q = jnp.asarray(np.log(q), jnp.float32)
    loss = exit_loss(log_q, jnp.asarray(oracle), jnp.asarray(weights, jnp.float32))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
