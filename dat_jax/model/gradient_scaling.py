# SPDX-License-Identifier: Apache-2.0
"""Gradient scaling: an exit's loss counts gamma_n times for the block before it (appendix A).

With it, the decoder runs each block twice with the same result: once for the exit, with scaled
gradients of the parameters, and once for the blocks above, without scaling.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dat_jax.types import Array, Float, Int


def block_scales(gamma: float, depths: Int[Array, " N"]) -> Float[Array, " N"]:
    """Returns gamma_n = gamma (N - n) for depths n < N, and gamma_N = 1 (paper, appendix A).

    The loss of exit n counts gamma_n times for the parameters of block n and once for those of
    blocks below, as in the paper's text. Its algorithm 1, taken literally, multiplies the factors
    of several blocks. Its formula gives gamma_N = 0, so block N would not learn.
    """
    return jnp.where(depths < len(depths), gamma * (len(depths) - depths), 1.0)


@jax.custom_vjp
def scale_gradient(x: Array, scale: ArrayLike) -> Array:
    """Returns `x`; multiplies its gradient by `scale`."""
    return x


def _scale_forward(x: Array, scale: ArrayLike) -> tuple[Array, ArrayLike]:
    return x, scale


def _scale_backward(scale: ArrayLike, gradient: Array) -> tuple[Array, Array]:
    return jnp.multiply(scale, gradient).astype(gradient.dtype), jnp.zeros_like(scale)


scale_gradient.defvjp(_scale_forward, _scale_backward)
