# SPDX-License-Identifier: Apache-2.0
"""Gradient scaling: an exit's loss counts gamma_n times for the block it follows (appendix A).

The decoder runs each block twice under it, to the same states: for the exit after the block with
parameters whose gradients are scaled, and for the blocks above with parameters as they are.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dat_jax.types import Array, Float, Int


def block_scales(gamma: float, depths: Int[Array, " N"]) -> Float[Array, " N"]:
    """gamma_n = gamma (N - n), and gamma_N = 1 (paper, appendix A), for depths 1 to N.

    The loss of exit n counts gamma_n times for the parameters of block n itself, and once for those
    of the blocks below it, as the losses above n do for those of block n: what the paper's text
    says. Its algorithm 1, taken literally, lets the factors of several blocks multiply. The paper's
    formula gives gamma_N = 0, by which block N would not learn.
    """
    return jnp.where(depths < len(depths), gamma * (len(depths) - depths), 1.0)


@jax.custom_vjp
def scale_gradient(x: Array, scale: ArrayLike) -> Array:
    """Returns `x`, whose gradient is multiplied by `scale`."""
    return x


def _scale_forward(x: Array, scale: ArrayLike) -> tuple[Array, ArrayLike]:
    return x, scale


def _scale_backward(scale: ArrayLike, gradient: Array) -> tuple[Array, Array]:
    return jnp.multiply(scale, gradient).astype(gradient.dtype), jnp.zeros_like(scale)


scale_gradient.defvjp(_scale_forward, _scale_backward)
