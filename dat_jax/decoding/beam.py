# SPDX-License-Identifier: Apache-2.0
"""Beam search as pure functions on arrays; with a beam of 1 it is greedy search.

Nothing here knows a model: whoever decodes finds the best continuations of each live beam, see
`dat_jax.decoding.top_tokens`, and calls `advance`. The rule is fairseq's. Of the 2J best
continuations of a sentence's J live beams, those among the first J that end in EOS become finished
hypotheses, and the first J that do not end are the new live beams. A sentence is done when it has J
finished hypotheses, or at its length limit. Equal scores go to the lower beam, then to the lower
token.

Every field of the state has the sentences B on its leading axis, each sentence has its own
position, and a sentence that is done no longer changes: an engine may advance all sentences
together or gather some of them, advance those and scatter them back, to the same result.
In the annotations below J is the beam size, T the room for tokens.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.decoding.top_tokens import Continuations
from dat_jax.types import Array, Bool, Int


class BeamState(NamedTuple):
    """Live and finished hypotheses of B sentences with J beams each.

    Live beams hold `position` tokens. Finished hypotheses fill slots 0 to `num_finished` - 1 in
    the order in which they ended; an empty slot scores -inf. Past the end of a hypothesis, tokens
    are `pad_id` and exits 0.
    """

    limit: jax.Array  # [B] the most tokens a hypothesis may have, EOS counted
    position: jax.Array  # [B] tokens in each live beam
    tokens: jax.Array  # [B, J, T]
    exits: jax.Array  # [B, J, T] the depth at which each token exited
    log_probs: jax.Array  # [B, J] the sum over tokens; -inf where there is no beam yet
    num_finished: jax.Array  # [B]
    finished_tokens: jax.Array  # [B, J, T]
    finished_exits: jax.Array  # [B, J, T]
    finished_lengths: jax.Array  # [B, J] EOS counted
    finished_log_probs: jax.Array  # [B, J]
    finished_scores: jax.Array  # [B, J] log-probability / length ** length_penalty


class Hypotheses(NamedTuple):
    """One finished hypothesis for each of B sentences."""

    tokens: jax.Array  # [B, T] EOS included, then `pad_id`
    exits: jax.Array  # [B, T] 0 past the end
    lengths: jax.Array  # [B] EOS counted
    log_probs: jax.Array  # [B]
    scores: jax.Array  # [B]


class _Candidates(NamedTuple):
    """Continuations of a sentence's live beams, best first."""

    parents: jax.Array  # [B, Q] the live beam that each continues
    log_probs: jax.Array  # [B, Q]
    tokens: jax.Array  # [B, Q] the new one
    exits: jax.Array  # [B, Q] its exit
    ends: jax.Array  # [B, Q] whether it is EOS


def init(limits: Int[Array, "B"], beam_size: int, max_length: int, pad_id: int) -> BeamState:
    """The state before the first token: one empty live beam a sentence, nothing finished.

    Args:
        limits: the most tokens a hypothesis of each sentence may have, EOS counted, up to
            `max_length`; 0 where there is no sentence.
        beam_size: live beams, and finished hypotheses to wait for, J.
        max_length: room for tokens, T.
        pad_id: fills the room past the end of a hypothesis.
    """
    sentences = limits.shape[0]
    no_tokens = jnp.full((sentences, beam_size, max_length), pad_id, jnp.int32)
    no_exits = jnp.zeros((sentences, beam_size, max_length), jnp.int32)
    no_scores = jnp.full((sentences, beam_size), -jnp.inf, jnp.float32)
    return BeamState(
        limit=limits.astype(jnp.int32),
        position=jnp.zeros(sentences, jnp.int32),
        tokens=no_tokens,
        exits=no_exits,
        log_probs=no_scores.at[:, 0].set(0.0),
        num_finished=jnp.zeros(sentences, jnp.int32),
        finished_tokens=no_tokens,
        finished_exits=no_exits,
        finished_lengths=jnp.zeros((sentences, beam_size), jnp.int32),
        finished_log_probs=no_scores,
        finished_scores=no_scores,
    )


def done(state: BeamState) -> Bool[Array, "B"]:
    """True for sentences that have their J finished hypotheses or have reached their limit."""
    beam_size = state.log_probs.shape[1]
    return (state.num_finished >= beam_size) | (state.position >= state.limit)


def live(state: BeamState) -> Bool[Array, "B J"]:
    """True for beams that hold a hypothesis of a sentence that is not done."""
    return ~done(state)[:, None] & (state.log_probs > -jnp.inf)


def last_tokens(state: BeamState, start_id: int) -> Int[Array, "B J"]:
    """The token that each live beam feeds to the decoder next: its last, or `start_id` if none."""
    last = jnp.maximum(state.position - 1, 0)
    tokens = jnp.take_along_axis(state.tokens, last[:, None, None], axis=2)[:, :, 0]
    return jnp.where(state.position[:, None] == 0, start_id, tokens)


def advance(
    state: BeamState,
    continuations: Continuations,
    exits: Int[Array, "B J"],
    *,
    length_penalty: float,
    eos_id: int,
) -> tuple[BeamState, Int[Array, "B J"]]:
    """Appends one token to every live beam of the sentences that are not done.

    Args:
        state: the search so far.
        continuations: the best of each live beam, [B, J, Q], where Q is 2J or all there are.
        exits: the depth at which each live beam's continuations were found.
        length_penalty: the exponent of the length that divides a finished log-probability.
        eos_id: the token that ends a hypothesis.

    Returns:
        The new state, and for each new live beam the old one that it continues: the order in which
        whatever else belongs to the beams (a cache, say) must be gathered. Sentences that were
        done keep their state and their order.
    """
    candidates = _best_candidates(continuations, exits, eos_id)
    new_state, parents = _continue(_finish(state, candidates, length_penalty), candidates)

    frozen = done(state)
    same_order = jnp.arange(exits.shape[1], dtype=jnp.int32)[None]
    parents = jnp.where(frozen[:, None], same_order, parents)
    return jax.tree.map(lambda old, new: _where(frozen, old, new), state, new_state), parents


def best(state: BeamState) -> Hypotheses:
    """The finished hypothesis with the best score; of equals, the one that ended first.

    A sentence without one has length 0 and score -inf.
    """
    slot = jnp.argmax(state.finished_scores, axis=1)[:, None]
    return jax.tree.map(lambda values: _take_beams(values, slot)[:, 0], _finished(state))


def _finished(state: BeamState) -> Hypotheses:
    """The finished hypotheses, J of each sentence."""
    return Hypotheses(
        tokens=state.finished_tokens,
        exits=state.finished_exits,
        lengths=state.finished_lengths,
        log_probs=state.finished_log_probs,
        scores=state.finished_scores,
    )


def _best_candidates(continuations: Continuations, exits: jax.Array, eos_id: int) -> _Candidates:
    """Ranks the continuations of all live beams together; returns the 2J best."""
    sentences, beam_size, count = continuations.tokens.shape
    top, index = jax.lax.top_k(continuations.log_probs.reshape(sentences, -1), 2 * beam_size)
    tokens = jnp.take_along_axis(continuations.tokens.reshape(sentences, -1), index, axis=1)
    parents = index // count
    return _Candidates(parents, top, tokens, _take_beams(exits, parents), tokens == eos_id)


def _finish(state: BeamState, candidates: _Candidates, length_penalty: float) -> BeamState:
    """Files the candidates among the first J that end, best first, while there are empty slots."""
    beam_size = state.log_probs.shape[1]
    first = jax.tree.map(lambda values: values[:, :beam_size], candidates)
    ends = first.ends & (first.log_probs > -jnp.inf)
    ranks = jnp.arange(beam_size)[None] - state.num_finished[:, None]
    chosen, is_new = _choose(first, ends, ranks)
    tokens, exits = _extend(state, chosen)
    length = jnp.broadcast_to(state.position[:, None] + 1, ranks.shape)
    scores = chosen.log_probs / length.astype(jnp.float32) ** length_penalty
    new = Hypotheses(tokens, exits, length, chosen.log_probs, scores)
    filed = jax.tree.map(lambda new, old: _where(is_new, new, old), new, _finished(state))
    return state._replace(
        num_finished=jnp.minimum(state.num_finished + jnp.sum(ends, axis=1), beam_size),
        finished_tokens=filed.tokens,
        finished_exits=filed.exits,
        finished_lengths=filed.lengths,
        finished_log_probs=filed.log_probs,
        finished_scores=filed.scores,
    )


def _continue(state: BeamState, candidates: _Candidates) -> tuple[BeamState, jax.Array]:
    """Makes the first J candidates that do not end the live beams; returns their parents too."""
    ranks = jnp.arange(state.log_probs.shape[1])[None]
    chosen, _ = _choose(candidates, ~candidates.ends, ranks)
    tokens, exits = _extend(state, chosen)
    state = state._replace(
        position=state.position + 1, tokens=tokens, exits=exits, log_probs=chosen.log_probs
    )
    return state, chosen.parents


def _choose(
    candidates: _Candidates, condition: jax.Array, ranks: jax.Array
) -> tuple[_Candidates, jax.Array]:
    """Picks, of the candidates for which `condition` [B, Q] holds, those of these ranks [B, J],
    counted from 0; returns too which ranks there are.

    Comparisons instead of sorts and scatters, which would each be a kernel of their own on GPU.
    """
    rank = jnp.cumsum(condition, axis=1) - 1
    matches = condition[:, None] & (rank[:, None] == ranks[..., None])
    index = jnp.argmax(matches, axis=2)
    return jax.tree.map(lambda x: _take_beams(x, index), candidates), jnp.any(matches, axis=2)


def _extend(state: BeamState, candidates: _Candidates) -> tuple[jax.Array, jax.Array]:
    """The tokens and exits [B, Q, T] of candidates, their newest ones included."""
    here = jnp.arange(state.tokens.shape[2])[None, None] == state.position[:, None, None]
    tokens, exits = (_take_beams(x, candidates.parents) for x in (state.tokens, state.exits))
    return (
        jnp.where(here, candidates.tokens[..., None], tokens),
        jnp.where(here, candidates.exits[..., None], exits),
    )


def _take_beams(values: jax.Array, beams: jax.Array) -> jax.Array:
    """Picks `beams` [B, Q] of `values` [B, J, ...], giving [B, Q, ...]."""
    beams = beams.reshape(beams.shape + (1,) * (values.ndim - 2))
    return jnp.take_along_axis(values, beams, axis=1)


def _where(condition: jax.Array, one: jax.Array, other: jax.Array) -> jax.Array:
    """Picks between two arrays [*B, ...] by `condition` [*B]."""
    shape = condition.shape + (1,) * (one.ndim - condition.ndim)
    return jnp.where(condition.reshape(shape), one, other)
