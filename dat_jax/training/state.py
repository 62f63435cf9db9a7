# SPDX-License-Identifier: Apache-2.0
"""All that a training step changes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dat_jax.types import Params


class TrainState(NamedTuple):
    """A checkpoint holds this and the position in the data; randomness follows from the step."""

    step: jax.Array  # [] updates made so far
    params: Params
    optimizer_state: optax.OptState

    @classmethod
    def create(cls, params: Params, optimizer: optax.GradientTransformation) -> "TrainState":
        """The state before the first step."""
        return cls(jnp.zeros((), jnp.int32), params, optimizer.init(params))
