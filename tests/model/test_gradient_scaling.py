# SPDX-License-Identifier: Apache-2.0
"""Gradient scaling as in the paper: a block's own loss counts gamma_n times, later losses once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.data.batching import Batch
from dat_jax.model.gradient_scaling import block_scales, scale_gradient
from dat_jax.model.transformer import Transformer
from dat_jax.training.objective import aligned
from dat_jax.types import Params
from tests.tiny import (
    TARGET_VOCABULARY,
    assert_all_close,
    ragged_mask,
    random_array,
    random_params,
    random_tokens,
    tiny_config,
    tiny_model,
)

N, B, S, T, D = 3, 2, 4, 3, 8
GAMMA = 0.7
SOURCE_MASK = ragged_mask((4, 2), S)
SOURCE = random_tokens(0, B, S, TARGET_VOCABULARY) * SOURCE_MASK
INPUTS = random_tokens(1, B, T, TARGET_VOCABULARY)
# The loss of exit n is its states times random numbers. Dropout is on, with one key for all.
FUNCTIONALS = random_array(2, N, B, T, D)
DROPOUT_KEY = jax.random.key(3)


def states_of(
    model: Transformer, params: Params, gamma: float, from_above: float = 1.0
) -> jax.Array:
    """The states [N, B, T, D] under dropout."""

    def run(model: Transformer) -> jax.Array:
        memory = model.encode(SOURCE, SOURCE_MASK, deterministic=False)
        return model.states(
            INPUTS,
            memory,
            SOURCE_MASK,
            gradient_scaling=gamma,
            gradient_from_above=from_above,
            deterministic=False,
        )

    return model.apply({"params": params}, method=run, rngs={"dropout": DROPOUT_KEY})


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def gradient_and_states(
    model: Transformer,
    params: Params,
    functionals: jax.Array,
    gamma: float,
    from_above: float = 1.0,
) -> tuple[Params, jax.Array]:
    """The gradient of the sum of all exits' losses, and the states [N, B, T, D]."""

    def loss(params: Params) -> tuple[jax.Array, jax.Array]:
        states = states_of(model, params, gamma, from_above)
        return jnp.sum(states * functionals), states

    return jax.grad(loss, has_aux=True)(params)


def weighted_sum(weights: list[np.ndarray], trees: list[Params]) -> Params:
    """Sums the trees, with the leaves of tree m weighted by `weights[m]` along their first axis."""

    def add(*leaves: jax.Array) -> np.ndarray:
        return sum(
            weight.reshape(-1, *(1,) * (leaf.ndim - 1)) * np.asarray(leaf)
            for weight, leaf in zip(weights, leaves, strict=True)
        )

    return jax.tree.map(add, *trees)


@functools.cache
def unscaled() -> tuple[list[Params], Params, jax.Array]:
    """The gradient of each exit's loss, that of their sum, and the states, without scaling."""
    model = tiny_model(dropout=0.3, attention_dropout=0.3)
    params = random_params(model)
    alone = [np.where(np.arange(N).reshape(N, 1, 1, 1) == n, FUNCTIONALS, 0.0) for n in range(N)]
    each = [gradient_and_states(model, params, functionals, 0.0)[0] for functionals in alone]
    return each, *gradient_and_states(model, params, FUNCTIONALS, 0.0)


@functools.cache
def scaled() -> tuple[Params, jax.Array]:
    """The gradient of the sum of all exits' losses, and the states, with scaling."""
    model = tiny_model(dropout=0.3, attention_dropout=0.3)
    return gradient_and_states(model, random_params(model), FUNCTIONALS, GAMMA)


def test_scales_fall_with_depth_and_end_at_1():
    np.testing.assert_allclose(block_scales(0.5, jnp.arange(1, 5)), [1.5, 1.0, 0.5, 1.0])
    np.testing.assert_allclose(block_scales(0.5, jnp.arange(1, 2)), [1.0])


def test_a_scale_multiplies_the_gradient_and_leaves_the_value():
    x, scale = random_array(0, 3), jnp.asarray(0.25)
    np.testing.assert_array_equal(scale_gradient(x, scale), x)
    gradients = jax.grad(lambda x, scale: jnp.sum(scale_gradient(x, scale) ** 2), (0, 1))(x, scale)
    np.testing.assert_allclose(gradients[0], 0.25 * 2 * x, rtol=1e-6)
    assert gradients[1] == 0


@pytest.mark.slow
def test_own_losses_count_gamma_n_times_and_later_losses_once():
    each, _, _ = unscaled()
    # weights[m][n]: how often the loss of exit m counts for block n; earlier exits do not count.
    gammas = [GAMMA * 2, GAMMA * 1, 1.0]
    weights = [np.where(np.arange(N) == m, gammas, np.arange(N) < m) for m in range(N)]
    expected = weighted_sum(weights, [gradient["decoder"] for gradient in each])
    gradient, _ = scaled()
    assert_all_close(gradient["decoder"], expected)


def test_gradients_outside_the_blocks_are_not_scaled():
    _, total, _ = unscaled()
    gradient, _ = scaled()
    assert gradient.keys() >= {"encoder", "source_embedding", "target_embedding"}
    assert_all_close(gradient | {"decoder": None}, total | {"decoder": None})
    assert np.abs(total["encoder"]["blocks"]["feed_forward"]["Dense_0"]["kernel"]).max() > 0.01


def test_gamma_0_turns_scaling_off():
    each, _, _ = unscaled()
    for n, gradient in enumerate(each):
        own = gradient["decoder"]["blocks"]["feed_forward"]["Dense_0"]["kernel"][n]
        assert np.abs(own).max() > 0.01


def test_scaling_changes_no_state():
    """Both runs of a block use the same dropout. States are equal bit by bit without jit; two
    compiled programs may round differently."""
    model = tiny_model(dropout=0.3, attention_dropout=0.3)
    params = random_params(model)
    with jax.disable_jit():
        one, other = (states_of(model, params, gamma) for gamma in (GAMMA, 0.0))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(scaled()[1], unscaled()[2], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("gamma", "factor"), [(0.0, 0.0), (0.0, 0.3), (GAMMA, 0.3)])
def test_a_loss_m_blocks_above_counts_by_the_mth_power_of_the_factor(gamma, factor):
    each, _, states = unscaled()
    model = tiny_model(dropout=0.3, attention_dropout=0.3)
    gradient, same = gradient_and_states(model, random_params(model), FUNCTIONALS, gamma, factor)
    np.testing.assert_allclose(same, states, rtol=1e-6, atol=1e-6)
    # weights[m][n]: how often the loss of exit m counts for block n.
    distance = np.arange(N)[:, None] - np.arange(N)[None]
    own = np.asarray([gamma * 2, gamma * 1, 1.0] if gamma else [1.0, 1.0, 1.0])
    above = np.where(distance < 0, 0.0, factor ** np.maximum(distance, 0.0))
    weights = np.where(distance == 0, own, above)
    expected = weighted_sum(list(weights), [gradient["decoder"] for gradient in each])
    assert_all_close(gradient["decoder"], expected)


def test_aligned_training_uses_gradient_from_above():
    model = tiny_model(decoder_layers=2, encoder_layers=1)
    params = random_params(model)

    def gradient(factor: float, decoder: Params) -> Params:
        changes = {"decoder_layers": 2, "encoder_layers": 1}
        training = {"gradient_from_above": factor, "label_smoothing": 0.0}
        config = tiny_config(model=changes, training=training)

        def loss(decoder: Params) -> jax.Array:
            batch, own = Batch(SOURCE, INPUTS), params | {"decoder": decoder}
            return aligned(model, config, own, batch, None)["loss"].total

        return jax.grad(loss)(decoder)

    of_none, of_half, of_all = jax.jit(lambda x: [gradient(g, x) for g in (0.0, 0.5, 1.0)])(
        params["decoder"]
    )
    halves = [np.array([0.5, 0.5])] * 2
    assert_all_close(of_half, weighted_sum(halves, [of_none, of_all]))
    kernels = [g["blocks"]["feed_forward"]["Dense_0"]["kernel"] for g in (of_none, of_all)]
    assert np.abs(kernels[0][0] - kernels[1][0]).max() > 0.005
    np.testing.assert_allclose(kernels[0][1], kernels[1][1], rtol=1e-4, atol=1e-4)


def test_aligned_training_uses_gradient_scaling():
    """The second exit's classifier is zero, so its loss has no gradient with respect to blocks."""
    changes = {"decoder_layers": 2, "encoder_layers": 1, "classifiers": "per_exit"}
    model = tiny_model(**changes)
    params = random_params(model)
    params["classifiers"]["table"] = params["classifiers"]["table"].at[1].set(0)

    def gradient(gamma: float, decoder: Params) -> Params:
        config = tiny_config(model=changes, training={"gradient_scaling": gamma})

        def loss(decoder: Params) -> jax.Array:
            batch, own = Batch(SOURCE, INPUTS), params | {"decoder": decoder}
            return aligned(model, config, own, batch, None)["loss"].total

        return jax.grad(loss)(decoder)

    with_gamma, without = jax.jit(lambda x: (gradient(GAMMA, x), gradient(0.0, x)))(
        params["decoder"]
    )
    assert_all_close(with_gamma, weighted_sum([np.array([GAMMA, 1.0])], [without]))
    largest = [
        np.abs(leaf).max(axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(without)
    ]
    np.testing.assert_array_equal(np.max(largest, axis=0) > 0.01, [True, False])
