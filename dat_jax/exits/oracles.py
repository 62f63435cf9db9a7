# SPDX-License-Identifier: Apache-2.0
"""Oracles: the depth at which the reference says that a token or a sentence should exit.

The paper's target distribution q* puts all its mass on one depth, and that depth is what these
functions return. Both look for the greatest score less `exit_penalty` times the depth; of equals
the lowest depth wins. A score is the reference's log-likelihood at an exit (the likelihood oracle),
or 1 where the exit predicts it right and 0 elsewhere (the correctness oracle).
"""

from typing import Literal

import jax
import jax.numpy as jnp

from dat_jax.types import Array, Bool, Float, Int


def token_oracle(
    scores: Float[Array, "N B T"],
    mask: Bool[Array, "B T"],
    *,
    exit_penalty: float,
    smoothing: float,
) -> Int[Array, "B T"]:
    """The best depth of each token (paper, section 3.3, equations 14 to 17).

    Args:
        scores: of each token at each exit.
        mask: true on real tokens; the others are neighbours to nobody.
        exit_penalty: lambda, what one block more must gain.
        smoothing: sigma, the width of the kernel exp(-|t - t'|^2 / sigma) by which the scores of a
            token's neighbours, past and future, are added to its own. At 0 they are not.
    """
    if smoothing > 0:
        position = jnp.arange(mask.shape[1])
        distance = position[:, None] - position[None, :]
        kernel = jnp.exp(-(distance**2) / smoothing)
        # By default a TPU rounds to bfloat16 first, and one token in a hundred exits elsewhere.
        scores = jnp.einsum(
            "nbp,tp->nbt",
            jnp.where(mask, scores, 0.0),
            kernel,
            precision=jax.lax.Precision.HIGHEST,
        )
    return _best_depth(scores, exit_penalty)


def sequence_oracle(
    scores: Float[Array, "N B T"],
    mask: Bool[Array, "B T"],
    *,
    exit_penalty: float,
    reduction: Literal["mean", "sum"],
) -> Int[Array, "B"]:
    """The best depth of each sentence (paper, section 3.2, equations 9 and 10).

    Args:
        scores: of each token at each exit.
        mask: true on real tokens.
        exit_penalty: lambda, what one block more must gain.
        reduction: over the tokens of a sentence. The paper's formula is a sum.
    """
    totals = jnp.sum(scores, axis=-1, where=mask)
    if reduction == "mean":
        totals = totals / jnp.maximum(jnp.sum(mask, axis=-1), 1)[None]
    return _best_depth(totals, exit_penalty)


def _best_depth(scores: Float[Array, "N *B"], exit_penalty: float) -> Int[Array, "*B"]:
    depth = jnp.arange(1, scores.shape[0] + 1).reshape(-1, *(1,) * (scores.ndim - 1))
    return 1 + jnp.argmax(scores - exit_penalty * depth, axis=0)
