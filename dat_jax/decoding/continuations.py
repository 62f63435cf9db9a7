# SPDX-License-Identifier: Apache-2.0
"""The likeliest next tokens of hypotheses: all that a search needs of V log-probabilities.

Of a sentence's 2J best continuations, none is beyond the 2J best of its own hypothesis, so engines
may look at hypotheses one by one and keep a few numbers of each.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.types import Array, Bool, Float

_GROUP = 128  # tokens; the best Q are in the Q groups with the greatest maxima


class Continuations(NamedTuple):
    """Q continuations of each hypothesis, best first; of equal ones, the lower token first."""

    log_probs: jax.Array  # [*B, Q] of the hypothesis with its new token; -inf if not allowed
    tokens: jax.Array  # [*B, Q]


def best_continuations(
    next_log_probs: Float[Array, "*B V"],
    log_probs: Float[Array, "*B"],
    must_end: Bool[Array, "*B"],
    count: int,
    *,
    eos_id: int,
    pad_id: int,
) -> Continuations:
    """The `count` best continuations of each hypothesis, or all V if that is less.

    Args:
        next_log_probs: of each token that may come next.
        log_probs: of the hypotheses so far.
        must_end: whether EOS is the only continuation allowed.
        count: how many to find, Q.
        eos_id: the token that ends a hypothesis.
        pad_id: the token that is never chosen.
    """
    vocabulary_size = next_log_probs.shape[-1]
    token_ids = jnp.arange(vocabulary_size).reshape((1,) * must_end.ndim + (-1,))
    allowed = (token_ids != pad_id) & ((token_ids == eos_id) | ~must_end[..., None])
    totals = jnp.where(allowed, log_probs[..., None] + next_log_probs, -jnp.inf)
    return Continuations(*_top(totals, min(count, vocabulary_size)))


def _top(values: Float[Array, "*B V"], count: int) -> tuple[Array, Array]:
    """`lax.top_k`, in two rounds: the groups that matter first, by their maxima.

    A maximum is one vectorised pass over the values; `top_k` itself compares them one by one.
    """
    short = -values.shape[-1] % _GROUP
    padding = [(0, 0)] * (values.ndim - 1) + [(0, short)]
    groups = jnp.pad(values, padding, constant_values=-jnp.inf)
    groups = groups.reshape(*values.shape[:-1], -1, _GROUP)
    maxima = jnp.max(groups, axis=-1)
    _, chosen = jax.lax.top_k(maxima, min(count, maxima.shape[-1]))
    chosen = jnp.sort(chosen, axis=-1)  # so that equal values stay in the order of their index
    kept = jnp.take_along_axis(groups, chosen[..., None], axis=-2)
    top, place = jax.lax.top_k(kept.reshape(*kept.shape[:-2], -1), count)
    group = jnp.take_along_axis(chosen, place // _GROUP, axis=-1)
    return top, group * _GROUP + place % _GROUP
