# SPDX-License-Identifier: Apache-2.0
"""Early exits: copied states and exit heads, compared with the numpy reference."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.model.transformer import Transformer
from tests.model import reference
from tests.tiny import (
    TARGET_VOCABULARY,
    ragged_mask,
    random_array,
    random_params,
    random_tokens,
    tiny_config,
    tiny_model,
)

N, T, S, D, E = 3, 3, 4, 8, 12
PATTERNS = list(itertools.product(range(1, N + 1), repeat=T))
# The same padded sentence in every row: rows differ only in where their tokens exit.
SENTENCE, LENGTH = random_tokens(0, 1, S, TARGET_VOCABULARY), 3
INPUT = random_tokens(1, 1, T, TARGET_VOCABULARY)
SOURCE, INPUTS = (jnp.repeat(x, len(PATTERNS), axis=0) for x in (SENTENCE, INPUT))
SOURCE_MASK = ragged_mask([LENGTH] * len(PATTERNS), S)

norms = pytest.mark.parametrize("norm", ["post", "pre"])


@functools.partial(jax.jit, static_argnums=0)
def states_of(model: Transformer, exit_depth: jax.Array | None) -> jax.Array:
    """The states [N, B, T, D] of a sentence for each pattern."""

    def run(model: Transformer) -> jax.Array:
        memory = model.encode(SOURCE, SOURCE_MASK)
        return model.states(INPUTS, memory, SOURCE_MASK, exit_depth=exit_depth)

    return model.apply({"params": random_params(model)}, method=run)


@functools.cache
def states_of_patterns(norm: str) -> np.ndarray:
    """The states [N, 27, T, D] when row b exits by `PATTERNS[b]`."""
    return np.asarray(states_of(tiny_model(norm=norm), jnp.asarray(PATTERNS)))


@norms
def test_states_equal_the_reference_for_every_pattern_of_exits(norm):
    model = tiny_model(norm=norm)
    params = reference.in_float64(random_params(model))
    memory = reference.encode(model.config, params, SENTENCE[0, :LENGTH].tolist())
    states = states_of_patterns(norm)
    for row, pattern in enumerate(PATTERNS):
        expected = reference.decode(model.config, params, memory, INPUT[0].tolist(), pattern)
        np.testing.assert_allclose(states[:, row], expected, rtol=1e-4, atol=1e-4)


@norms
def test_an_early_exit_changes_what_later_tokens_see(norm):
    """So the reference would notice keys and values of a wrong state; block 2 sees the same one."""
    states = states_of_patterns(norm)
    for row, (first, second, last) in enumerate(PATTERNS):
        if first == 1 and last == N:
            other = PATTERNS.index((N, second, last))
            difference = np.abs(states[:, row, -1] - states[:, other, -1]).max(axis=-1)
            np.testing.assert_array_equal(difference > 1e-3, [False, False, True])
            np.testing.assert_array_equal(difference[:2], 0)


def test_exits_at_full_depth_change_nothing():
    model = tiny_model()
    full_depth = states_of_patterns("post")[:, PATTERNS.index((N, N, N))]
    np.testing.assert_array_equal(full_depth, states_of(model, None)[:, 0])


@norms
def test_the_state_at_the_exit_is_copied_upward(norm):
    states = states_of_patterns(norm)
    for row, pattern in enumerate(PATTERNS):
        for token, depth in enumerate(pattern):
            own = states[:, row, token]
            np.testing.assert_array_equal(
                own[depth:], np.broadcast_to(own[depth - 1], own[depth:].shape)
            )
            changes = np.abs(np.diff(own[:depth], axis=0)).max(axis=-1)
            assert (changes > 0.01).all()


def test_gradients_flow_through_copied_states():
    model = tiny_model()
    memory, x, direction = random_array(2, 1, S, E), random_array(3, 1, T, D), random_array(4, T, D)
    exits = jnp.asarray([[1, 1, 2]])

    @jax.jit
    def gradient(depth: int) -> jax.Array:
        def product(x: jax.Array) -> jax.Array:
            def run(model: Transformer) -> jax.Array:
                return model.decoder(
                    x, memory, SOURCE_MASK[:1], exit_depth=exits, deterministic=True
                )

            states = model.apply({"params": random_params(model)}, method=run)
            return jnp.sum(states[depth - 1, 0] * direction)

        return jax.grad(product)(x)

    assert (gradient(2) != 0).all()
    np.testing.assert_array_equal(gradient(3), gradient(2))


HEADS = [
    {"exit_head": "sequence_multinomial"},
    {"exit_head": "token_multinomial"},
    {"exit_head": "token_geometric", "halting_weights": "shared"},
    {"exit_head": "token_geometric", "halting_weights": "per_depth"},
    {"exit_head": "token_geometric", "halting_weights": "shared", "halting_hidden": 5},
    {"exit_head": "token_geometric", "halting_weights": "per_depth", "halting_hidden": 5},
]
heads = pytest.mark.parametrize("head", HEADS, ids=lambda head: "-".join(map(str, head.values())))
HEAD_LENGTHS = (5, 1, 3)
HEAD_MASK = ragged_mask(HEAD_LENGTHS, 5)
MEMORY = random_array(2, len(HEAD_LENGTHS), 5, E)
STATES = random_array(3, N, len(HEAD_LENGTHS), T, D)


def exit_logits(model: Transformer, memory: jax.Array = MEMORY) -> jax.Array:
    variables = {"params": random_params(model)}
    return model.apply(variables, memory, HEAD_MASK, STATES, method="exit_logits")


@norms
@heads
def test_exit_logits_equal_the_reference(head, norm):
    model = tiny_model(norm=norm, **head)
    params = reference.in_float64(random_params(model))
    logits = exit_logits(model)
    for row, length in enumerate(HEAD_LENGTHS):
        memory = list(np.asarray(MEMORY[row, :length], np.float64))
        after_blocks = [list(states) for states in np.asarray(STATES[:, row], np.float64)]
        expected = reference.exit_logits(model.config, params, memory, after_blocks)
        assert logits[row].shape == expected.shape
        np.testing.assert_allclose(logits[row], expected, rtol=1e-4, atol=1e-4)


@heads
def test_exit_heads_multiply_at_full_precision(head):
    """By default a TPU rounds states and weights to bfloat16."""
    program = jax.jit(functools.partial(exit_logits, tiny_model(**head))).lower(MEMORY).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert products
    assert all("precision = [HIGHEST, HIGHEST]" in product for product in products)


def test_the_sequence_head_ignores_padding():
    model = tiny_model(exit_head="sequence_multinomial")
    garbage = jnp.where(HEAD_MASK[..., None], MEMORY, 1e6)
    np.testing.assert_array_equal(exit_logits(model, garbage), exit_logits(model))


@pytest.mark.parametrize(("halting_weights", "units"), [("shared", 1), ("per_depth", N - 1)])
def test_halting_units_are_shared_or_per_depth_and_start_at_their_bias(halting_weights, units):
    changes = {"exit_head": "token_geometric", "halting_weights": halting_weights}
    config = tiny_config(model=changes | {"halting_bias": -2.5}).model
    model = Transformer(config, TARGET_VOCABULARY, TARGET_VOCABULARY)
    weights = model.init(jax.random.key(0), method="exit_head_weights")["params"]["exit_head"]
    assert weights["kernel"].shape == (D, units)
    np.testing.assert_array_equal(weights["bias"], jnp.full(units, -2.5))


@pytest.mark.parametrize(("halting_weights", "units"), [("shared", 1), ("per_depth", N - 1)])
def test_each_halting_unit_may_have_a_hidden_layer_of_its_own(halting_weights, units):
    changes = {"exit_head": "token_geometric", "halting_weights": halting_weights}
    model = tiny_model(**changes, halting_hidden=400)
    weights = model.init(jax.random.key(0), method="exit_head_weights")["params"]["exit_head"]
    assert (weights["kernel"].shape, weights["bias"].shape) == ((400, units), (units,))
    kernel = np.asarray(weights["hidden"]["kernel"])
    assert kernel.shape == (units, D, 400)
    np.testing.assert_array_equal(weights["hidden"]["bias"], jnp.zeros((units, 400)))
    # Xavier's bound is of one unit's layer, however many there are.
    np.testing.assert_allclose(np.abs(kernel).max(axis=(1, 2)), np.sqrt(6 / (D + 400)), rtol=0.01)


@pytest.mark.parametrize("head", ["none", "sequence_multinomial", "token_multinomial"])
def test_other_heads_have_no_hidden_layer(head: str):
    plain, wide = (random_params(tiny_model(exit_head=head, halting_hidden=h)) for h in (0, 5))
    jax.tree.map(np.testing.assert_array_equal, wide, plain)
