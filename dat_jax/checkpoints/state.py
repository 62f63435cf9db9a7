# SPDX-License-Identifier: Apache-2.0
"""The state that a checkpoint holds, and where its arrays are placed."""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dat_jax.types import Params

Tree = TypeVar("Tree")


class TrainState(NamedTuple):
    """Everything that a training step changes.

    A checkpoint holds it and the position in the data; random keys follow from the step.
    """

    step: jax.Array  # [] updates made so far
    params: Params
    optimizer_state: Any  # of optax, which reading a model does without

    @classmethod
    def create(cls, params: Params, optimizer: Any) -> "TrainState":
        """Returns the state before the first step of an optax optimizer."""
        return cls(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def placed(shapes: Tree, sharding: jax.sharding.Sharding) -> Tree:
    """Adds `sharding`, the place to restore to, to each array in a tree of shapes."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


def place(tree: Tree, like: Any) -> Tree:
    """Places arrays, equal in all processes, with the shardings of `like`."""

    def placed(array: jax.Array, where: Any) -> jax.Array:
        values = np.asarray(array)
        return jax.make_array_from_callback(
            values.shape, where.sharding, lambda index: values[index]
        )

    return jax.tree.map(placed, tree, like)
