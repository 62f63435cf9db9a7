# SPDX-License-Identifier: Apache-2.0
"""Runs a function on the rows that need it: gathered, computed, scattered back.

A row is a hypothesis. Programs have static shapes, so rows are gathered to the smallest of a few
sizes that holds them all, and the function is compiled once for each size. Where the largest size
is needed, all R rows run in place and nothing is gathered. With a single size, R, this is plain
masking: all rows run if any row needs to.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from dat_jax.types import Array, Bool, Int

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows that a function runs on: C of R, or all of them."""

    active: Bool[Array, " R"]  # the rows that need it
    indices: Int[Array, " C"] | None  # of these, and then R; None: all R rows, in place

    @property
    def numbers(self) -> Int[Array, " C"]:
        """The index of each row, R for an unused one."""
        return jnp.arange(len(self.active)) if self.indices is None else self.indices

    def take(self, tree: Tree) -> Tree:
        """Gathers these rows of arrays [R, ...]; unused ones repeat the last row."""
        if self.indices is None:
            return tree
        return jax.tree.map(lambda leaf: leaf.at[self.indices].get(mode="clip"), tree)

    def put(self, new: Tree, old: Tree) -> Tree:
        """Replaces the active rows of `old` [R, ...] by those of `new` [C, ...]."""
        if self.indices is not None:
            # Each row looks up its own place: a gather, where a scatter would loop over rows.
            place = jnp.cumsum(self.active) - 1
            new = jax.tree.map(lambda leaf: leaf.at[place].get(mode="clip"), new)
        return jax.tree.map(partial(_where, self.active), new, old)


def on_rows(
    active: Bool[Array, " R"],
    sizes: tuple[int, ...],
    function: Callable[[Rows], Tree],
    otherwise: Tree,
) -> tuple[Tree, Int[Array, ""]]:
    """Runs `function` on the active rows.

    Args:
        active: the rows that need it.
        sizes: row counts to compile for, ascending, the last one R.
        function: takes the rows to run, returns a tree of arrays [C, ...], a row for each.
        otherwise: what rows have that are not active, [R, ...].

    Returns:
        Its results where a row is active, and the number of rows that were computed, idle ones
        included; 0 if no row is active, and then nothing runs.
    """

    def run(size: int) -> Tree:
        everything = size == len(active)
        rows = Rows(active, None if everything else first_where(active, size))
        return rows.put(function(rows), otherwise)

    size = jnp.sum(jnp.sum(active) > jnp.asarray((0, *sizes[:-1])))
    branches = [lambda: otherwise, *(partial(run, count) for count in sizes)]
    return jax.lax.switch(size, branches), jnp.asarray((0, *sizes))[size]


def first_where(condition: Bool[Array, " G"], count: int) -> Int[Array, " A"]:
    """The indices of the first `count` entries where `condition` holds; G where there are fewer."""
    # Entry i of the result is the number of entries before the i-th true one. Comparing and summing
    # avoids the sort and the scatter of `jnp.nonzero`.
    return jnp.sum(jnp.cumsum(condition)[None] <= jnp.arange(count)[:, None], axis=1)


def _where(condition: Bool[Array, " R"], new: Any, old: Any) -> Any:
    return jnp.where(condition.reshape(-1, *[1] * (new.ndim - 1)), new, old)
