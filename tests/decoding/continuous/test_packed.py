# SPDX-License-Identifier: Apache-2.0
"""Packed arrays are the arrays, to the bit, and are taken and put as they would be one by one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dat_jax.decoding.continuous.packed import pack
from dat_jax.decoding.queue import put

ROWS = 5


class Tree(NamedTuple):
    """Arrays of all kinds that a pool has."""

    whole: jax.Array
    numbers: jax.Array
    nothing: jax.Array
    wide: jax.Array
    more: tuple[jax.Array, jax.Array]


def tree_of(seed: int, rows: int) -> Tree:
    generator = np.random.default_rng(seed)
    whole = generator.integers(-(2**31), 2**31, (rows, 4)).astype(np.int32)
    numbers = generator.normal(size=(rows, 3)).astype(np.float32)
    numbers[0] = -np.inf, np.nan, -0.0
    arrays = (
        whole,
        numbers,
        numbers[:, :0],
        whole.reshape(rows, 2, 2),
        (numbers[:, 1], whole[:, 0]),
    )
    return Tree(*jax.tree.map(jnp.asarray, arrays))


def assert_same_bits(one: Tree, other: Tree) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        np.testing.assert_array_equal(
            np.asarray(left).view(np.int32), np.asarray(right).view(np.int32)
        )


def test_what_is_packed_comes_out_as_it_was():
    tree = tree_of(0, ROWS)
    packed = jax.jit(pack)(tree)
    assert len(packed) == ROWS
    assert len(jax.tree.leaves(packed)) == 2  # a matrix, and what has more than two axes
    assert_same_bits(packed.tree, tree)


def test_rows_are_taken_and_put_as_those_of_each_array():
    tree, new, rows = tree_of(1, ROWS), tree_of(2, 3), jnp.asarray([4, ROWS, 1])
    taken = jax.tree.map(lambda leaf: leaf[jnp.minimum(rows, ROWS - 1)], tree)
    assert_same_bits(pack(tree).take(rows).tree, taken)
    assert_same_bits(put(pack(tree), rows, pack(new)).tree, put(tree, rows, new))
