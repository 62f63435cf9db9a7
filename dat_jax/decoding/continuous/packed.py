# SPDX-License-Identifier: Apache-2.0
"""Many small arrays as one matrix, so that one gather or one scatter moves all of them.

Larger arrays stay by themselves: in one matrix with the others they would be read along with them.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from dat_jax.types import Array, Int

Tree = TypeVar("Tree")


class _Form(NamedTuple):
    """The tree of the arrays, and the shape and the dtype of each."""

    structure: Any
    leaves: tuple[tuple[tuple[int, ...], Any], ...]  # the shapes are those of one row


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Packed(Generic[Tree]):
    """A tree of arrays [B, ...]: those of one axis or two, of numbers of 32 bits, side by side."""

    bits: Any  # [B, K] int32, floats by their bits; of JAX, or what it puts in place of arrays
    others: tuple[Any, ...]  # as they are
    form: _Form = dataclasses.field(metadata={"static": True})

    def __len__(self) -> int:
        return len(self.bits)

    @property
    def tree(self) -> Tree:
        """The arrays."""
        return jax.tree.unflatten(self.form.structure, self._leaves())

    def take(self, rows: Int[Array, " A"]) -> "Packed[Tree]":
        """These rows; of no row, the last."""
        return jax.tree.map(lambda leaf: leaf.at[rows].get(mode="clip"), self)

    def _leaves(self) -> Iterator[Array]:
        start, others = 0, iter(self.others)
        for shape, dtype in self.form.leaves:
            if len(shape) > 1:
                yield next(others)
                continue
            end = start + math.prod(shape)
            columns = self.bits[:, start:end].reshape(len(self), *shape)
            yield jax.lax.bitcast_convert_type(columns, dtype)
            start = end


def pack(tree: Tree) -> Packed[Tree]:
    """Puts arrays [B, ...] side by side."""
    leaves, structure = jax.tree.flatten(tree)
    form = _Form(structure, tuple((leaf.shape[1:], leaf.dtype) for leaf in leaves))
    columns = [
        jax.lax.bitcast_convert_type(leaf, jnp.int32).reshape(len(leaf), math.prod(leaf.shape[1:]))
        for leaf in leaves
        if leaf.ndim <= 2
    ]
    others = tuple(leaf for leaf in leaves if leaf.ndim > 2)
    return Packed(jnp.concatenate(columns, axis=1), others, form)
