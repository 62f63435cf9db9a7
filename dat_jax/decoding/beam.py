# SPDX-License-Identifier: Apache-2.0
"""Beam search as pure functions on arrays; with a beam of 1 it is greedy search.

No model appears here: the engine finds the best continuations of each live beam
(`dat_jax.decoding.top_tokens`) and calls `advance`. The rule is fairseq's. Of the 2J best
continuations of a sentence's J live beams, those among the first J that end in EOS become finished
hypotheses, and the first J that do not end are the new live beams. A sentence is done when it has J
finished hypotheses or reaches its length limit. Ties go to the lower beam, then to the lower token
or, of a shortlist, to the one that stands first in it.

Every field of the state has the sentences B on its leading axis, and each sentence has its own
position. A sentence that is done has no live beams, and advancing it changes nothing. In the
annotations J is the beam size and T the room for tokens.

Small selections use compare-and-sum; a gather, scatter or sort would each be a separate kernel.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.decoding.history import Entries, entries, extend, no_history
from dat_jax.decoding.top_tokens import Continuations
from dat_jax.types import Array, Bool, Float, Int, Shaped


class BeamState(NamedTuple):
    """Live and finished hypotheses of B sentences with J beams each.

    Live beams have `position` tokens. Finished hypotheses are stored in the order they ended.
    """

    limit: jax.Array  # [B] maximum tokens of a hypothesis, EOS included
    position: jax.Array  # [B] tokens in each live beam
    tokens: jax.Array  # [B, J] the next decoder inputs of live beams
    history: jax.Array  # [B, J, history] of live beams
    log_probs: jax.Array  # [B, J] of live beams, summed over tokens; -inf for none
    finished_history: jax.Array  # [B, J, history]
    finished_lengths: jax.Array  # [B, J] EOS included; 0 for none
    finished_log_probs: jax.Array  # [B, J] -inf for none


class Hypotheses(NamedTuple):
    """One finished hypothesis for each of B sentences, or as many as a list has: then [B, n]."""

    tokens: jax.Array  # [B, T] EOS included, then `pad_id`
    exits: jax.Array  # [B, T] 0 past the end
    lengths: jax.Array  # [B] EOS included; 0 for none
    log_probs: jax.Array  # [B] -inf for none
    scores: jax.Array  # [B] log-probability / length ** length_penalty


class _Candidates(NamedTuple):
    """Continuations of a sentence's live beams, best first."""

    log_probs: jax.Array  # [B, top]
    entries: Entries  # [B, top]


def init(limits: Int[Array, "B"], beam_size: int, max_length: int, start_id: int) -> BeamState:
    """Returns the state before the first token: one empty live beam per sentence.

    Args:
        limits: maximum tokens of each sentence's hypotheses, EOS included, up to `max_length`; 0
            for an empty slot, which therefore counts as done.
        beam_size: live beams, and finished hypotheses to wait for, J.
        max_length: room for tokens, T.
        start_id: the first decoder input.
    """
    sentences = len(limits)
    nothing = jnp.full((sentences, beam_size), -jnp.inf, jnp.float32)
    history = no_history(sentences, beam_size, max_length)
    return BeamState(
        limit=limits.astype(jnp.int32),
        position=jnp.zeros(sentences, jnp.int32),
        tokens=jnp.full((sentences, beam_size), start_id, jnp.int32),
        history=history,
        log_probs=nothing.at[:, 0].set(jnp.where(limits > 0, 0.0, -jnp.inf)),
        finished_history=history,
        finished_lengths=jnp.zeros((sentences, beam_size), jnp.int32),
        finished_log_probs=nothing,
    )


def live(state: BeamState) -> Bool[Array, "B J"]:
    """True for beams that hold a hypothesis to continue."""
    return state.log_probs > -jnp.inf


def trailing(state: BeamState, gap: float) -> Bool[Array, "B J"]:
    """True for live beams whose log-probability is `gap` nats or more below that of their
    sentence's best."""
    best_of_all = jnp.max(state.log_probs, axis=1, keepdims=True)
    return live(state) & (best_of_all - state.log_probs >= gap)


def done(state: BeamState) -> Bool[Array, "B"]:
    """True for sentences with J finished hypotheses or at their length limit."""
    return ~jnp.any(live(state), axis=1)


def num_finished(state: BeamState) -> Int[Array, "B"]:
    """The number of finished hypotheses."""
    return jnp.sum(state.finished_lengths > 0, axis=1, dtype=jnp.int32)


def advance(
    state: BeamState, continuations: Continuations, exits: Int[Array, "B J"], *, eos_id: int
) -> BeamState:
    """Appends one token to every live beam; its history records the beam it continues.

    Args:
        state: the search so far.
        continuations: the best of each live beam, [B, J, top]; `top` is 2J, or V if smaller.
        exits: the exit depth of each live beam's newest token.
        eos_id: the token that ends a hypothesis.
    """
    num_beams, working = exits.shape[1], ~done(state)
    candidates = _best_candidates(continuations, exits)
    ends = candidates.entries.tokens == eos_id
    first = jnp.arange(ends.shape[1])[None] < num_beams
    ranks = jnp.arange(num_beams)[None]

    ending = ends & first & (candidates.log_probs > -jnp.inf)
    filed, is_new = _choose(candidates, ending, ranks - num_finished(state)[:, None])
    going, _ = _choose(candidates, ~ends, ranks)  # at least J, unless all must end

    position = state.position + working
    lengths = jnp.where(is_new, position[:, None], state.finished_lengths)
    over = (position >= state.limit) | (jnp.min(lengths, axis=1) > 0)
    return BeamState(
        limit=state.limit,
        position=position,
        tokens=going.entries.tokens,
        history=_extend(state, going.entries),
        log_probs=jnp.where(over[:, None], -jnp.inf, going.log_probs),
        finished_history=jnp.where(
            is_new[..., None], _extend(state, filed.entries), state.finished_history
        ),
        finished_lengths=lengths,
        finished_log_probs=jnp.where(is_new, filed.log_probs, state.finished_log_probs),
    )


def best(state: BeamState, length_penalty: float, pad_id: int) -> Hypotheses:
    """Returns the finished hypothesis with the best score; of equal ones, the first to end.

    A sentence without any has length 0 and score -inf.

    Args:
        state: the finished search.
        length_penalty: the exponent of the length that divides a log-probability.
        pad_id: fills the room past the end of a hypothesis.
    """
    scores = finished_scores(state, length_penalty)
    place = jnp.argmax(scores, axis=1)[:, None]
    return jax.tree.map(lambda leaf: leaf[:, 0], _at(state, scores, place, pad_id))


def n_best(state: BeamState, length_penalty: float, pad_id: int, count: int) -> Hypotheses:
    """Returns the `count` best finished hypotheses, [B, count], the best first; of equal ones, the
    first to end. Missing ones have length 0 and score -inf. See `best` for the arguments."""
    scores = finished_scores(state, length_penalty)
    return _at(state, scores, jax.lax.top_k(scores, count)[1], pad_id)


def finished_scores(state: BeamState, length_penalty: float) -> Float[Array, "B J"]:
    """Returns log-probability / length ** length_penalty of finished hypotheses; -inf for none."""
    lengths = jnp.maximum(state.finished_lengths, 1).astype(jnp.float32)
    return state.finished_log_probs / lengths**length_penalty


def take_beams(
    values: Shaped[Array, "B J *D"], beams: Int[Array, "B top"]
) -> Shaped[Array, "B top *D"]:
    """Picks beams of each sentence."""
    return _pick(values, jax.nn.one_hot(beams, values.shape[1], dtype=bool))


def _at(
    state: BeamState, scores: Float[Array, "B J"], places: Int[Array, "B top"], pad_id: int
) -> Hypotheses:
    """Returns the finished hypotheses at these places, [B, top]."""
    lengths = take_beams(state.finished_lengths, places)
    tokens, exits, _ = entries(take_beams(state.finished_history, places))
    inside = jnp.arange(tokens.shape[-1])[None, None] < lengths[..., None]
    return Hypotheses(
        tokens=jnp.where(inside, tokens, pad_id),
        exits=jnp.where(inside, exits, 0),
        lengths=lengths,
        log_probs=take_beams(state.finished_log_probs, places),
        scores=take_beams(scores, places),
    )


def _best_candidates(continuations: Continuations, exits: Int[Array, "B J"]) -> _Candidates:
    """Ranks the continuations of all live beams together; returns the 2J best."""
    sentences, num_beams, count = continuations.tokens.shape
    log_probs, tokens = (leaf.reshape(sentences, -1) for leaf in continuations)
    log_probs, index = jax.lax.top_k(log_probs, 2 * num_beams)
    parents = index // count
    return _Candidates(
        log_probs, Entries(take_beams(tokens, index), take_beams(exits, parents), parents)
    )


def _choose(
    candidates: _Candidates, condition: Bool[Array, "B top"], ranks: Int[Array, "#B J"]
) -> tuple[_Candidates, Bool[Array, "B J"]]:
    """Picks the candidates with these ranks, from 0, among those where `condition` holds. Also
    returns a mask of the ranks that exist."""
    so_far = jnp.cumsum(condition, axis=1)
    chosen = condition[:, None] & (so_far[:, None] == 1 + ranks[..., None])
    are_there = (ranks >= 0) & (ranks < so_far[:, -1:])
    return jax.tree.map(lambda leaf: _pick(leaf, chosen), candidates), are_there


def _extend(state: BeamState, new: Entries) -> Int[Array, "B J history"]:
    """Returns the histories of live beams continued by these entries, [B, J]."""
    return extend(take_beams(state.history, new.parents), state.position, new)


def _pick(
    values: Shaped[Array, "B J *D"], chosen: Bool[Array, "B top J"]
) -> Shaped[Array, "B top *D"]:
    """Picks the chosen one of J, or 0 if none is chosen."""
    chosen = chosen.reshape(chosen.shape + (1,) * (values.ndim - 2))
    return jnp.sum(jnp.where(chosen, values[:, None], 0), axis=2, dtype=values.dtype)
