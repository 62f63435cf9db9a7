# SPDX-License-Identifier: Apache-2.0
"""Running a function on the rows that need it equals numpy on all rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.decoding.compaction import Rows, first_where, on_rows

R, D = 7, 3
X = np.random.default_rng(0).normal(size=(R, D)).astype(np.float32)


@pytest.mark.parametrize("sizes", [(R,), (1, 2, 4, R), (3, 5, R)])
@pytest.mark.parametrize(
    "rows", [[], [0], [6], [2, 5], [0, 3, 6], [1, 2, 4, 5], [0, 1, 2, 3, 4, 6], [*range(R)]]
)
def test_active_rows_get_the_result_and_others_keep_their_value(
    rows: list[int], sizes: tuple[int, ...]
):
    active = np.isin(np.arange(R), rows)
    otherwise = {"sum": np.full(R, -1.0, np.float32), "number": np.full((R, 1), 99)}

    def function(taken: Rows) -> dict[str, jax.Array]:
        x, numbers = taken.take((jnp.asarray(X), jnp.arange(R)))
        assert x.shape[0] == len(taken.numbers) in sizes
        return {"sum": jnp.sum(x, axis=1), "number": numbers[:, None]}

    found, computed = jax.jit(lambda mask: on_rows(mask, sizes, function, otherwise))(active)
    np.testing.assert_allclose(found["sum"], np.where(active, X.sum(axis=1), -1), rtol=1e-6)
    np.testing.assert_array_equal(found["number"][:, 0], np.where(active, np.arange(R), 99))
    expected = min(size for size in sizes if size >= len(rows)) if rows else 0
    assert computed == expected


def test_rows_come_in_order_and_unused_places_are_marked():
    def function(taken: Rows) -> jax.Array:
        return jnp.broadcast_to(taken.numbers[None, :3], (len(taken.numbers), 3))

    active = jnp.asarray([False, True, False, False, True, False, False])
    found, _ = on_rows(active, (3, R), function, jnp.zeros((R, 3), jnp.int32))
    assert found[1].tolist() == found[4].tolist() == [1, 4, R]


@pytest.mark.parametrize("count", [1, 3, 4, 6])
def test_first_where_lists_true_positions_then_the_length(count: int):
    condition = jnp.asarray([False, True, False, True])
    assert first_where(condition, count).tolist() == ([1, 3] + [4] * count)[:count]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 500])
def test_first_where_equals_numpy_for_any_number_of_rows(length: int, share: float):
    condition = np.random.default_rng(length).uniform(size=length) < share
    (indices,) = np.nonzero(condition)
    for count in (1, length // 2 + 1, length, length + 3):
        expected = np.concatenate([indices, np.full(count, length)])[:count]
        np.testing.assert_array_equal(first_where(jnp.asarray(condition), count), expected)
