# SPDX-License-Identifier: Apache-2.0
"""Runs a function on only the rows that need it: gather, compute, scatter back.

A row is a hypothesis. Programs have static shapes, so the active rows are gathered to the smallest
of a few sizes that holds them, and the function is compiled once per size. At the largest size all
R rows run in place, without a gather. A single size, R, is plain masking: all rows run if any row
is active.
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
    """The C rows, of R, that a function runs on."""

    active: Bool[Array, " R"]
    indices: Int[Array, " C"] | None  # of active rows, padded with R; None: all rows, in place

    @property
    def numbers(self) -> Int[Array, " C"]:
        """The index of each row; R for padding."""
        return jnp.arange(len(self.active)) if self.indices is None else self.indices

    def take(self, tree: Tree) -> Tree:
        """Gathers these rows of arrays [R, ...]; padding repeats the last row."""
        if self.indices is None:
            return tree
        return jax.tree.map(lambda leaf: leaf.at[self.indices].get(mode="clip"), tree)

    def put(self, new: Tree, old: Tree) -> Tree:
        """Replaces the active rows of `old` [R, ...] with those of `new` [C, ...]."""
        if self.indices is not None:
            # Each row looks up its place: a gather. A scatter would loop over rows.
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
        active: the rows to run.
        sizes: row counts to compile for, ascending, ending with R.
        function: maps the gathered rows to a tree of arrays [C, ...].
        otherwise: the results of inactive rows, [R, ...].

    Returns:
        The results, and the number of computed rows, padding included; 0 if no row is active, in
        which case nothing runs.
    """

    def run(size: int) -> Tree:
        everything = size == len(active)
        rows = Rows(active, None if everything else first_where(active, size))
        return rows.put(function(rows), otherwise)

    size = jnp.sum(jnp.sum(active) > jnp.asarray((0, *sizes[:-1])))
    branches = [lambda: otherwise, *(partial(run, count) for count in sizes)]
    return jax.lax.switch(size, branches), jnp.asarray((0, *sizes))[size]


def first_where(condition: Bool[Array, " G"], count: int) -> Int[Array, " A"]:
    """Returns the indices of the first `count` true entries, padded with G."""
    # Result i counts the entries before the i-th true one; compare-and-sum avoids the sort and
    # scatter of `jnp.nonzero`.
    return jnp.sum(jnp.cumsum(condition)[None] <= jnp.arange(count)[:, None], axis=1)


def _where(condition: Bool[Array, " R"], new: Any, old: Any) -> Any:
    return jnp.where(condition.reshape(-1, *[1] * (new.ndim - 1)), new, old)
