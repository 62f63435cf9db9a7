# SPDX-License-Identifier: Apache-2.0
"""The likeliest next tokens that may be written: all that a search needs of V logits.

Of a sentence's 2J best continuations, none is beyond the 2J best of its own hypothesis, so
hypotheses may be looked at one by one, and a few numbers of each kept.

What may be written is said here, and nowhere else. No token below EOS is: PAD, UNK and BOS stand
for no text. EOS is not the first, and is all that follows where one more token fits; where that is
the first, it is EOS. Log-probabilities remain the model's, over all V: what may not be written
makes nothing else likelier.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.types import Array, Float, Int, Shaped

_LARGEST, _SMALLEST, _ALIGNED = 128, 32, 8  # groups, by the tokens that they have


class TopTokens(NamedTuple):
    """The greatest logits of tokens that may be written, best first; of equal ones, the lower token
    first."""

    logits: jax.Array  # [*B, top]
    tokens: jax.Array  # [*B, top]
    eos_logit: jax.Array  # [*B] of the token that ends a hypothesis
    normaliser: jax.Array  # [*B] the logsumexp of all V


class Continuations(NamedTuple):
    """Continuations of each hypothesis, best first but for those that are not allowed; of equal
    ones, the lower token first."""

    log_probs: jax.Array  # [*B, top] of the hypothesis with its new token; -inf if not allowed
    tokens: jax.Array  # [*B, top]


def group_size(vocabulary_size: int) -> int:
    """The tokens of a group: a divisor of the vocabulary's size if a good one exists, so that
    nothing has to be padded, and a multiple of 8, by which TPUs lay arrays out."""
    sizes = range(_LARGEST, _SMALLEST - 1, -_ALIGNED)
    return next((size for size in sizes if vocabulary_size % size == 0), _LARGEST)


def in_groups(
    values: Shaped[Array, "V *D"], fill: float | int
) -> Shaped[Array, "groups grouped *D"]:
    """Values of each token by groups of tokens, the last one filled up.

    A table of classifiers in groups makes logits in groups: on TPU, the maxima of groups then come
    with the product, where those of a reshaped product would take twice as long as it.
    """
    size = group_size(len(values))
    missing = -len(values) % size
    padded = jnp.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1), constant_values=fill)
    return padded.reshape(-1, size, *values.shape[1:])


def top_tokens(logits: Float[Array, "*B groups grouped"], count: int, eos_id: int) -> TopTokens:
    """Finds the `count` greatest logits of tokens that may be written.

    Args:
        logits: of the next token, in groups; -inf of what fills the last one.
        count: how many to find; no more than there are tokens.
        eos_id: the token that ends a hypothesis; no lower one is ever written.
    """
    maxima = jnp.max(logits, axis=-1)
    top, tokens = _top(logits, maxima, count, eos_id)
    flat = logits.reshape(*maxima.shape[:-1], -1)
    greatest = jnp.max(maxima, axis=-1)
    sums = jnp.sum(jnp.exp(flat - greatest[..., None]), axis=-1)
    return TopTokens(top, tokens, flat[..., eos_id], jnp.log(sums) + greatest)


def likeliest(logits: Float[Array, "*B groups grouped"], count: int) -> Int[Array, "*B K"]:
    """The `count` likeliest of all tokens, those that are never written too, in ascending order."""
    _, tokens = _top(logits, jnp.max(logits, axis=-1), count, 0)
    return jnp.sort(tokens, axis=-1)


def top_of_shortlist(
    logits: Float[Array, "*B K"],
    tokens: Int[Array, "*B K"],
    eos_logit: Float[Array, "*B"],
    count: int,
    eos_id: int,
) -> TopTokens:
    """As `top_tokens`, where these tokens are all that there are.

    Args:
        logits: of the tokens.
        tokens: in ascending order.
        eos_logit: of EOS, which need not be one of them.
        count: how many to find; -inf where fewer may be written.
        eos_id: the token that ends a hypothesis; no lower one is ever written.
    """
    written = jnp.where(tokens < eos_id, -jnp.inf, logits)
    top, order = jax.lax.top_k(written, count)
    found = jnp.take_along_axis(tokens, order, axis=-1, mode="clip")
    return TopTokens(top, found, eos_logit, jax.nn.logsumexp(logits, axis=-1))


def continuations(
    top: TopTokens,
    log_probs: Float[Array, "*B"],
    positions: Int[Array, "*#B"],
    limits: Int[Array, "*#B"],
    eos_id: int,
) -> Continuations:
    """Continues hypotheses that have these log-probabilities and so many tokens, of so many at the
    most: by EOS alone where one more fits, and else not by EOS if it would be the first."""
    positions, limits = positions[..., None], limits[..., None]
    # Twice as many as beams are found, so that J remain without the one that is EOS.
    empty = (positions == 0) & (top.tokens == eos_id)
    must_end = positions + 1 >= limits
    end = jnp.full_like(top.logits, -jnp.inf).at[..., 0].set(top.eos_logit)
    # What normalises changes no order, so it is never taken from V numbers.
    offset = (log_probs - top.normaliser)[..., None]
    return Continuations(
        offset + jnp.where(must_end, end, jnp.where(empty, -jnp.inf, top.logits)),
        jnp.where(must_end, eos_id, top.tokens),
    )


def _top(
    logits: Float[Array, "*B groups grouped"],
    maxima: Float[Array, "*B groups"],
    count: int,
    lowest: int,
) -> tuple[Array, Array]:
    """`lax.top_k`, tokens below `lowest` aside, in two rounds: first which groups matter, by their
    maxima, as the n best tokens are in the n groups with the greatest.

    A maximum is one vectorised pass over the values; `top_k` itself compares them one by one.
    """
    groups, size = logits.shape[-2:]
    # One more, as those aside may be what raises the first group, which has them all. Sorted, lest
    # equal values change places.
    _, best = jax.lax.top_k(maxima, min(count + 1, groups))
    best = jnp.sort(best, axis=-1)
    kept = jnp.take_along_axis(logits, best[..., None], axis=-2, mode="clip")
    tokens = best[..., None] * size + jax.lax.broadcasted_iota(jnp.int32, kept.shape, kept.ndim - 1)
    kept = jnp.where(tokens < lowest, -jnp.inf, kept)
    top, order = jax.lax.top_k(kept.reshape(*kept.shape[:-2], -1), count)
    return top, jnp.take_along_axis(best, order // size, axis=-1, mode="clip") * size + order % size
