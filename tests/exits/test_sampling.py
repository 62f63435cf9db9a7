# SPDX-License-Identifier: Apache-2.0
"""Draws are uniform, repeat with their key, and differ where they should differ."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.exits.sampling import sample_exits, token_draws

N = 6


def exits(seed: int, sampling: str, rows: int = 60, length: int = 50) -> np.ndarray:
    """Depths drawn for a batch, [rows, length]."""
    return np.asarray(sample_exits(jax.random.key(seed), rows, length, N, sampling))


@pytest.mark.parametrize(("sampling", "rows"), [("per_token", 60), ("per_sequence", 3_000)])
def test_all_depths_are_about_equally_likely(sampling, rows):
    depths = exits(0, sampling, rows)
    assert depths.shape == (rows, 50)
    drawn = depths if sampling == "per_token" else depths[:, 0]
    values, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(1, N + 1))
    np.testing.assert_allclose(counts / drawn.size, 1 / N, atol=0.03)  # four standard deviations


@pytest.mark.parametrize("sampling", ["per_token", "per_sequence"])
def test_the_key_determines_the_draws(sampling):
    np.testing.assert_array_equal(exits(1, sampling), exits(1, sampling))
    assert (exits(1, sampling) != exits(2, sampling)).any()


def test_per_sequence_draws_one_depth_per_row():
    depths = exits(0, "per_sequence")
    assert (depths == depths[:, :1]).all()
    assert len(set(depths[:, 0])) == N


def test_per_token_varies_within_a_row_and_between_rows():
    depths = exits(0, "per_token")
    assert all(len(set(row)) == N for row in depths)
    assert len(set(map(str, depths))) == len(depths)


def draws(seed: int, sentences: list[int], positions: list[int], beams: int) -> np.ndarray:
    """`token_draws` of lists, [sentences, beams]."""
    return np.asarray(token_draws(seed, jnp.asarray(sentences), jnp.asarray(positions), beams))


def test_token_draws_spread_over_zero_to_one():
    drawn = draws(0, list(range(1_000)), [3] * 1_000, 2)
    assert drawn.shape == (1_000, 2)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts, _ = np.histogram(drawn, bins=10, range=(0, 1))
    np.testing.assert_allclose(counts / drawn.size, 0.1, atol=0.03)


def test_every_seed_sentence_position_and_beam_has_its_own_draw():
    sentences, positions = np.asarray(list(itertools.product(range(3), range(4)))).T.tolist()
    drawn = np.stack([draws(seed, sentences, positions, 2) for seed in (0, 1)])
    assert drawn.shape == (2, 12, 2)
    assert np.unique(drawn).size == drawn.size


def test_draws_do_not_depend_on_the_batch():
    together = draws(5, [7, 3, 9], [0, 4, 2], 3)
    np.testing.assert_array_equal(draws(5, [3], [4], 3), together[1:2])
    reordered = draws(5, [9, 8, 7], [2, 6, 0], 3)
    np.testing.assert_array_equal(reordered[[0, 2]], together[[2, 0]])


def test_draws_do_not_depend_on_the_beam_size():
    np.testing.assert_array_equal(draws(5, [7, 3], [0, 4], 2), draws(5, [7, 3], [0, 4], 5)[:, :2])


def test_a_traced_seed_draws_the_same_values():
    traced = jax.jit(token_draws, static_argnums=3)(5, jnp.asarray([7]), jnp.asarray([0]), 3)
    np.testing.assert_array_equal(traced, draws(5, [7], [0], 3))
