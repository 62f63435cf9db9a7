# SPDX-License-Identifier: Apache-2.0
"""Oracles: the depth at which a token or a sentence should exit, given the reference.

The paper's target distribution q* puts all mass on one depth, which these functions return: the
depth that maximises score - exit_penalty * depth, the lowest on ties. A score is the reference's
log-likelihood at an exit (likelihood oracle), or 1 if the exit predicts the reference and else 0
(correctness oracle), or, not in the paper, 1 if the exit predicts what the last exit predicts and
else 0 (agreement oracle).
"""

from typing import Literal

import jax
import jax.numpy as jnp

from dat_jax.types import Array, Bool, Float, Int


def agreement(likeliest: Int[Array, "N B T"]) -> Float[Array, "N B T"]:
    """Returns the scores of the agreement oracle from the likeliest token at each exit.

    Without smoothing, a token's best depth is the first that agrees, and the last exit always does.
    The penalty does not change that below 1 / (N - 1); a larger one sends tokens that first agree
    at a depth of 1 + 1 / exit_penalty or more to depth 1. A sentence's best depth has the smallest
    sum of disagreeing tokens and exit_penalty * depth.
    """
    return (likeliest == likeliest[-1:]).astype(jnp.float32)


def oracle_scores(
    oracle: Literal["likelihood", "correctness", "agreement"],
    token_ll: Float[Array, "N B T"],
    correct: Bool[Array, "N B T"],
    likeliest: Int[Array, "N B T"],
) -> Float[Array, "N B T"]:
    """Returns the scores of an oracle (`exit.oracle`), each token's at each exit.

    Args:
        oracle: its name.
        token_ll: the reference's log-likelihood.
        correct: true where the reference token is the likeliest.
        likeliest: the likeliest token.
    """
    if oracle == "agreement":
        return agreement(likeliest)
    return token_ll if oracle == "likelihood" else correct.astype(jnp.float32)


def token_oracle(
    scores: Float[Array, "N B T"],
    mask: Bool[Array, "B T"],
    *,
    exit_penalty: float,
    smoothing: float,
) -> Int[Array, "B T"]:
    """Returns the best depth of each token (paper, section 3.3, equations 14 to 17).

    Args:
        scores: the score of each token at each exit.
        mask: true on real tokens; padding does not count as a neighbour.
        exit_penalty: lambda, the gain in score that each further block must bring.
        smoothing: sigma of the kernel exp(-|t - t'|^2 / sigma) that weights the scores of past and
            future neighbours added to a token's own; 0 adds none.
    """
    if smoothing > 0:
        position = jnp.arange(mask.shape[1])
        distance = position[:, None] - position[None, :]
        kernel = jnp.exp(-(distance**2) / smoothing)
        # A TPU rounds to bfloat16 by default, which changes the exit of one token in a hundred.
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
    """Returns the best depth of each sentence (paper, section 3.2, equations 9 and 10).

    Args:
        scores: the score of each token at each exit.
        mask: true on real tokens.
        exit_penalty: lambda, the gain in score that each further block must bring.
        reduction: over the tokens of a sentence; the paper's formula is a sum.
    """
    totals = jnp.sum(scores, axis=-1, where=mask)
    if reduction == "mean":
        totals = totals / jnp.maximum(jnp.sum(mask, axis=-1), 1)[None]
    return _best_depth(totals, exit_penalty)


def _best_depth(scores: Float[Array, "N *B"], exit_penalty: float) -> Int[Array, "*B"]:
    depth = jnp.arange(1, scores.shape[0] + 1).reshape(-1, *(1,) * (scores.ndim - 1))
    return 1 + jnp.argmax(scores - exit_penalty * depth, axis=0)
