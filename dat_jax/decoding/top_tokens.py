# SPDX-License-Identifier: Apache-2.0
"""The likeliest next tokens of hypotheses: all that a search needs of V logits.

Of a sentence's 2J best continuations, none is beyond the 2J best of its own hypothesis, so engines
may look at hypotheses one by one and keep a few numbers of each.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.types import Array, Bool, Float

_GROUP = 128  # tokens; the n best are in the n groups with the greatest maxima


class TopTokens(NamedTuple):
    """The greatest of V logits, best first; of equal ones, the lower token first."""

    logits: jax.Array  # [*B, top]
    tokens: jax.Array  # [*B, top]
    eos_logit: jax.Array  # [*B] of the token that ends a hypothesis
    normaliser: jax.Array  # [*B] the logsumexp of all V


class Continuations(NamedTuple):
    """Continuations of each hypothesis, best first; of equal ones, the lower token first."""

    log_probs: jax.Array  # [*B, top] of the hypothesis with its new token; -inf if not allowed
    tokens: jax.Array  # [*B, top]


def top_tokens(logits: Float[Array, "*B V"], count: int, *, eos_id: int, pad_id: int) -> TopTokens:
    """Finds the `count` greatest logits, or all V if that is less.

    Args:
        logits: of the next token.
        count: how many to find.
        eos_id: the token that ends a hypothesis.
        pad_id: the token that is never chosen.
    """
    top, tokens = _top(logits, min(count, logits.shape[-1]), pad_id)
    return TopTokens(top, tokens, logits[..., eos_id], jax.nn.logsumexp(logits, axis=-1))


def continuations(
    top: TopTokens, log_probs: Float[Array, "*B"], must_end: Bool[Array, "*B"], eos_id: int
) -> Continuations:
    """Continues hypotheses of these log-probabilities; with EOS alone where they must end."""
    end = jnp.full_like(top.logits, -jnp.inf).at[..., 0].set(top.eos_logit)
    must_end = must_end[..., None]
    # What normalises changes no order, so it is never taken from V numbers.
    offset = (log_probs - top.normaliser)[..., None]
    return Continuations(
        offset + jnp.where(must_end, end, top.logits), jnp.where(must_end, eos_id, top.tokens)
    )


def _top(values: Float[Array, "*B V"], count: int, never: int) -> tuple[Array, Array]:
    """`lax.top_k`, `never` aside, in two rounds: first which groups matter, by their maxima.

    A maximum is one vectorised pass over the values; `top_k` itself compares them one by one.
    """
    *batch, size = values.shape
    grouped, left_over = jnp.split(jnp.arange(size), [size - size % _GROUP])
    members = grouped.reshape(-1, _GROUP)
    maxima = jnp.max(values[..., : len(grouped)].reshape(*batch, *members.shape), axis=-1)
    # One more, as `never` may be what raises its group. Sorted, lest equal values change places.
    _, best = jax.lax.top_k(maxima, min(count + 1, len(members)))
    best = members[jnp.sort(best, axis=-1)].reshape(*batch, -1)
    left_over = jnp.broadcast_to(left_over, (*batch, len(left_over)))
    candidates = jnp.concatenate([best, left_over], axis=-1)
    kept = jnp.take_along_axis(values, candidates, axis=-1)
    top, order = jax.lax.top_k(jnp.where(candidates == never, -jnp.inf, kept), count)
    return top, jnp.take_along_axis(candidates, order, axis=-1)
