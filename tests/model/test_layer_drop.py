# SPDX-License-Identifier: Apache-2.0
"""LayerDrop: a dropped block returns its input, and only training drops blocks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.model.layer_drop import draw_kept, drop_rates
from dat_jax.model.transformer import Transformer
from tests.tiny import (
    TARGET_VOCABULARY,
    random_params,
    random_tokens,
    tiny_model,
)

B, S, T, N = 40, 3, 4, 3
SOURCE = random_tokens(0, B, S, TARGET_VOCABULARY)
INPUTS = random_tokens(1, B, T, TARGET_VOCABULARY)
MASK = jnp.ones((B, S), bool)
EXIT_DEPTH = 1 + random_tokens(2, B, T, N) % N


@partial(jax.jit, static_argnums=(0, 1))
def states_of(
    model: Transformer, deterministic: bool, exit_depth: jax.Array | None = None
) -> jax.Array:
    """The state before the first block and those after each, [N + 1, B, T, D]."""

    def run(model: Transformer) -> jax.Array:
        memory = model.encode(SOURCE, MASK)
        before = model.embed(INPUTS, jnp.arange(T)[None])
        states = model.states(
            INPUTS, memory, MASK, exit_depth=exit_depth, deterministic=deterministic
        )
        return jnp.concatenate([before[None], states])

    rngs = {"dropout": jax.random.key(3)}
    return model.apply({"params": random_params(model)}, method=run, rngs=rngs)


def unchanged(states: jax.Array) -> np.ndarray:
    """True [N, B, T] where a block returned its input state."""
    return np.asarray((states[1:] == states[:-1]).all(axis=-1))


def test_rates_are_constant_or_rise_with_depth():
    depths = jnp.arange(1, 4)
    constant, rising = (
        tiny_model(layer_drop=0.3, layer_drop_rates=x).config for x in ("constant", "rising")
    )
    np.testing.assert_allclose(drop_rates(constant, depths), [0.3, 0.3, 0.3], rtol=1e-6)
    np.testing.assert_allclose(drop_rates(rising, depths), [0.1, 0.2, 0.3], rtol=1e-6)


def test_the_share_of_kept_blocks_follows_the_rate():
    kept = draw_kept(jax.random.key(0), jnp.asarray(0.2), 20_000)
    assert 0.79 < kept.mean() < 0.81


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_each_block_is_dropped_for_its_own_whole_sentences(norm):
    dropped = unchanged(states_of(tiny_model(norm=norm, layer_drop=0.5), False))
    np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[..., :1], dropped.shape))
    of_blocks = dropped[..., 0]
    assert 0.3 < of_blocks.mean() < 0.7
    assert len(np.unique(of_blocks, axis=0)) == N


def test_kept_blocks_compute_the_same():
    model = tiny_model(layer_drop=0.4)
    states, whole = states_of(model, False), states_of(tiny_model(), False)
    first = unchanged(states)[0]
    assert first.any() and not first.all()
    expected = np.where(first[..., None], whole[0], whole[1])
    np.testing.assert_allclose(states[1], expected, rtol=1e-5, atol=1e-5)


def test_an_exited_token_runs_no_later_block():
    dropped = unchanged(states_of(tiny_model(layer_drop=0.5), False, EXIT_DEPTH))
    above = np.arange(1, N + 1)[:, None, None] > np.asarray(EXIT_DEPTH)[None]
    assert dropped[above].all()
    assert 0.3 < dropped[~above].mean() < 0.7


def test_decoding_runs_all_blocks():
    states, plain = states_of(tiny_model(layer_drop=0.5), True), states_of(tiny_model(), True)
    np.testing.assert_array_equal(states, plain)
