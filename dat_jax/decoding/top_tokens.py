# SPDX-License-Identifier: Apache-2.0
"""The likeliest allowed next tokens of each hypothesis, all that a search needs of the V logits.

The 2J best continuations of a sentence are among the 2J best of each of its hypotheses, so each
hypothesis keeps only those, or the shortlist that it has.

This module alone masks tokens: PAD, UNK and BOS are never generated. EOS is not generated first,
unless the limit is one token, and it is forced where only one more token fits. Log-probabilities
stay the model's, normalised over all V tokens or over a shortlist.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.types import Array, Float, Int, Shaped

_LARGEST, _SMALLEST, _ALIGNED = 128, 32, 8  # groups, by the tokens that they have


class TopTokens(NamedTuple):
    """The greatest logits of allowed tokens, best first, ties in token order; or a shortlist in its
    own order, -inf for tokens that are not allowed."""

    logits: jax.Array  # [*B, top]
    tokens: jax.Array  # [*B, top]
    eos_logit: jax.Array  # [*B] of EOS
    normaliser: jax.Array  # [*B] the logsumexp over all V, or over the shortlist


class Shortlisted(NamedTuple):
    """The few tokens that the next one is chosen among: special ones, then the likeliest others."""

    logits: jax.Array  # [*B, shortlist]
    tokens: jax.Array  # [*B, shortlist]
    normaliser: jax.Array  # [*B] the logsumexp over all V, or over the shortlist


class Continuations(NamedTuple):
    """Continuations of each hypothesis, in the order of its top tokens."""

    log_probs: jax.Array  # [*B, top] of the hypothesis with its new token; -inf if disallowed
    tokens: jax.Array  # [*B, top]


def group_size(vocabulary_size: int) -> int:
    """Returns the tokens per group: a multiple of 8, the TPU's tile, that divides the vocabulary's
    size if possible, so that no group needs padding."""
    sizes = range(_LARGEST, _SMALLEST - 1, -_ALIGNED)
    return next((size for size in sizes if vocabulary_size % size == 0), _LARGEST)


def in_groups(
    values: Shaped[Array, "V *D"], fill: float | int
) -> Shaped[Array, "groups grouped *D"]:
    """Splits per-token values into groups of tokens; `fill` pads the last group.

    A classifier table in groups gives logits in groups. On TPU the maxima of the groups are then
    fused with the product; those of reshaped logits would take twice as long as the product.
    """
    size = group_size(len(values))
    missing = -len(values) % size
    padded = jnp.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1), constant_values=fill)
    return padded.reshape(-1, size, *values.shape[1:])


def top_tokens(logits: Float[Array, "*B groups grouped"], count: int, eos_id: int) -> TopTokens:
    """Finds the `count` greatest logits of allowed tokens.

    Args:
        logits: of the next token, in groups; the last group is padded with -inf.
        count: how many to find, at most V.
        eos_id: the token that ends a hypothesis; lower ones are never generated.
    """
    maxima = jnp.max(logits, axis=-1)
    top, tokens = _top(logits, maxima, count, eos_id)
    flat = logits.reshape(*maxima.shape[:-1], -1)
    return TopTokens(top, tokens, flat[..., eos_id], _logsumexp(logits, maxima))


def shortlist(logits: Float[Array, "*B groups grouped"], words: int, eos_id: int) -> Shortlisted:
    """Shortlists the special tokens, 0 to EOS, and the likeliest `words` others, best first.

    Special tokens are always there: they are part of the normaliser, and a search may have to end.
    """
    maxima = jnp.max(logits, axis=-1)
    top, tokens = _top(logits, maxima, words, eos_id + 1)
    special = jnp.broadcast_to(jnp.arange(eos_id + 1), (*tokens.shape[:-1], eos_id + 1))
    flat = logits.reshape(*maxima.shape[:-1], -1)
    return Shortlisted(
        jnp.concatenate([flat[..., : eos_id + 1], top], axis=-1),
        jnp.concatenate([special, tokens], axis=-1),
        _logsumexp(logits, maxima),
    )


def score_shortlist(
    logits: Float[Array, "*B shortlist"], tokens: Int[Array, "*B shortlist"]
) -> Shortlisted:
    """Returns a shortlist with new logits, normalised over its tokens alone."""
    return Shortlisted(logits, tokens, jax.nn.logsumexp(logits, axis=-1))


def all_of_shortlist(among: Shortlisted, eos_id: int) -> TopTokens:
    """Returns a whole shortlist, for a search that chooses among all tokens anyway."""
    allowed = jnp.where(among.tokens < eos_id, -jnp.inf, among.logits)
    return TopTokens(allowed, among.tokens, among.logits[..., eos_id], among.normaliser)


def top_of_shortlist(among: Shortlisted, count: int, eos_id: int) -> TopTokens:
    """Like `top_tokens`, with the choice limited to a shortlist, whose order decides between ties;
    -inf for missing tokens."""
    every = all_of_shortlist(among, eos_id)
    top, order = jax.lax.top_k(every.logits, count)
    found = jnp.take_along_axis(every.tokens, order, axis=-1, mode="clip")
    return every._replace(logits=top, tokens=found)


def continuations(
    top: TopTokens,
    log_probs: Float[Array, "*B"],
    positions: Int[Array, "*#B"],
    limits: Int[Array, "*#B"],
    eos_id: int,
) -> Continuations:
    """Continues hypotheses with these log-probabilities, lengths and length limits: only by EOS if
    one more token fits, and otherwise not by EOS as the first token."""
    positions, limits = positions[..., None], limits[..., None]
    # 2J tokens were found, so at least J remain besides EOS.
    empty = (positions == 0) & (top.tokens == eos_id)
    must_end = positions + 1 >= limits
    end = jnp.full_like(top.logits, -jnp.inf).at[..., 0].set(top.eos_logit)
    # The normaliser does not change the order, so it is subtracted from the few chosen alone.
    offset = (log_probs - top.normaliser)[..., None]
    return Continuations(
        offset + jnp.where(must_end, end, jnp.where(empty, -jnp.inf, top.logits)),
        jnp.where(must_end, eos_id, top.tokens),
    )


def _logsumexp(
    logits: Float[Array, "*B groups grouped"], maxima: Float[Array, "*B groups"]
) -> Float[Array, "*B"]:
    """Returns the logsumexp over all tokens, given the maxima of the groups."""
    greatest = jnp.max(maxima, axis=-1)
    flat = logits.reshape(*maxima.shape[:-1], -1)
    return jnp.log(jnp.sum(jnp.exp(flat - greatest[..., None]), axis=-1)) + greatest


def _top(
    logits: Float[Array, "*B groups grouped"],
    maxima: Float[Array, "*B groups"],
    count: int,
    lowest: int,
) -> tuple[Array, Array]:
    """`lax.top_k` without tokens below `lowest`, in two rounds: the n best tokens are in the n
    groups with the greatest maxima.

    Maxima take one vectorised pass over the values; `top_k` compares them one by one.
    """
    groups, size = logits.shape[-2:]
    # One extra group, because masked tokens can inflate group 0. Sorted so that ties keep token
    # order.
    _, best = jax.lax.top_k(maxima, min(count + 1, groups))
    best = jnp.sort(best, axis=-1)
    kept = jnp.take_along_axis(logits, best[..., None], axis=-2, mode="clip")
    tokens = best[..., None] * size + jax.lax.broadcasted_iota(jnp.int32, kept.shape, kept.ndim - 1)
    kept = jnp.where(tokens < lowest, -jnp.inf, kept)
    top, order = jax.lax.top_k(kept.reshape(*kept.shape[:-2], -1), count)
    return top, jnp.take_along_axis(best, order // size, axis=-1, mode="clip") * size + order % size
