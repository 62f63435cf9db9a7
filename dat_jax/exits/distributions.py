# SPDX-License-Identifier: Apache-2.0
"""Exit distributions q(n), in log space, from the logits of an exit head (paper, section 3)."""

import jax
import jax.numpy as jnp

from dat_jax.types import Array, Float


def multinomial(logits: Float[Array, "*B N"]) -> Float[Array, "*B N"]:
    """Returns log q(n) from one logit per depth (equations 8 and 11)."""
    return jax.nn.log_softmax(logits)


def geometric(halting_logits: Float[Array, "*B L"]) -> Float[Array, "*B N"]:
    """Returns log q(n) from halting logits after each block except the last (equations 12 and 13).

    A token exits at the first depth where it halts, or at N. Values and gradients are finite for
    finite logits.
    """
    goes_on = jnp.cumsum(jax.nn.log_sigmoid(-halting_logits), axis=-1)
    reaches = jnp.concatenate([jnp.zeros_like(goes_on[..., :1]), goes_on], axis=-1)
    halts = jnp.concatenate(
        [jax.nn.log_sigmoid(halting_logits), jnp.zeros_like(goes_on[..., :1])], axis=-1
    )
    return reaches + halts
