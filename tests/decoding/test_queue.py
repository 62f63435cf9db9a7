# SPDX-License-Identifier: Apache-2.0
"""The queue, run with an engine that needs no model, compared with plain lists: when sentences
enter, and which output belongs to which sentence."""

from typing import NamedTuple

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from dat_jax.data.vocabulary import EOS, PAD
from dat_jax.decoding import beam
from dat_jax.decoding.queue import (
    Arrivals,
    Queue,
    Sentences,
    no_sentences,
    put,
    refill_is_due,
    serve,
)
from dat_jax.decoding.settings import SearchSettings
from dat_jax.decoding.top_tokens import Continuations

G, Q, S, T = 4, 9, 3, 6
NUMBERS = np.arange(100, 100 + Q)


class Steps(NamedTuple):
    """The state of a fake engine that repeats one word for each sentence."""

    sentences: Sentences  # [G]
    words: jax.Array  # [G]
    busy: jax.Array  # [] busy slots, summed over steps
    steps: jax.Array  # []
    arrived: jax.Array  # [] sentences
    refills: jax.Array  # []


def admit(state: Steps, arrivals: Arrivals) -> Steps:
    """The word of a sentence is the sum of its source and its number."""
    words = jnp.sum(arrivals.source, axis=1) + arrivals.sentences.numbers
    return state._replace(
        sentences=put(state.sentences, arrivals.slots, arrivals.sentences),
        words=put(state.words, arrivals.slots, words),
        arrived=state.arrived + jnp.sum(arrivals.slots < len(state.words)),
        refills=state.refills + 1,
    )


def step(state: Steps) -> Steps:
    """Appends the word again, or EOS at the limit."""
    beams = state.sentences.beams
    token = jnp.where(beams.position + 1 == beams.limit, EOS, state.words)[:, None, None]
    log_probs = jnp.concatenate([jnp.zeros(token.shape), jnp.full(token.shape, -jnp.inf)], axis=-1)
    continuations = Continuations(log_probs, jnp.broadcast_to(token, log_probs.shape))
    exits = jnp.ones((len(state.words), 1), jnp.int32)
    after = beam.advance(beams, continuations, exits, eos_id=EOS)
    busy = state.busy + jnp.sum(~beam.done(beams))
    sentences = state.sentences._replace(beams=after)
    return state._replace(sentences=sentences, busy=busy, steps=state.steps + 1)


@jax.jit
def serve_all(queue: Queue) -> tuple[beam.Hypotheses, Steps]:
    settings = SearchSettings(
        beam_size=1,
        length_penalty=1.0,
        length=T,
        slots=G,
        refill=2,
        sizes=(G,),
        shortlist=0,
        trailing_gap=0.0,
        windows=(T,),
        projected=0,
    )
    zero, words = jnp.zeros((), jnp.int32), jnp.zeros(G, jnp.int32)
    empty = Steps(no_sentences(queue, settings), words, *[zero] * 4)
    return serve(queue, settings, empty, lambda state: state.sentences, admit, step)


def steps_of(limits: list[int]) -> tuple[int, int]:
    """Steps and refills, counted on plain lists: two sentences enter together, or the last one."""
    waiting, working, steps, refills = list(limits), [0] * G, 0, 0
    while waiting or any(working):
        free = [slot for slot in range(G) if working[slot] == 0]
        come = min(2, len(waiting), len(free))
        for slot in free[:come]:
            working[slot] = waiting.pop(0)
        refills += 1
        while any(working):
            if waiting and working.count(0) >= min(2, len(waiting)):
                break
            working = [max(left - 1, 0) for left in working]
            steps += 1
    return steps, refills


@given(st.lists(st.integers(1, T), max_size=Q), st.integers(0, 2**32 - 1))
def test_each_sentence_gets_its_own_output_and_no_slot_waits(limits: list[int], seed: int):
    count = len(limits)
    source = np.zeros((Q, S), np.int32)
    source[:count] = np.random.default_rng(seed).integers(4, 50, (count, S))
    rooms = np.zeros(Q, np.int32)
    rooms[:count] = limits
    queue = Queue(*map(jnp.asarray, (source, rooms, NUMBERS, np.int32(count))))
    found, state = jax.tree.map(np.asarray, serve_all(queue))
    for place, limit in enumerate(limits):
        word = source[place].sum() + NUMBERS[place]
        written = [word] * (limit - 1) + [EOS] + [PAD] * (T - limit)
        assert found.tokens[place].tolist() == written
        assert found.lengths[place] == limit
    assert (found.lengths[count:] == 0).all()
    assert (found.tokens[count:] == PAD).all()
    assert state.busy == sum(limits)
    assert state.arrived == count
    assert (state.steps, state.refills) == steps_of(limits)


@pytest.mark.parametrize("count", [1, 3, G])
@given(
    sentences=st.integers(0, Q),
    first=st.integers(0, Q),
    free=st.lists(st.booleans(), min_size=G, max_size=G),
)
def test_a_refill_is_due_when_its_sentences_have_free_slots(
    count: int, sentences: int, first: int, free: list[bool]
):
    nothing = jnp.zeros((Q, S), jnp.int32)
    queue = Queue(nothing, nothing[:, 0], nothing[:, 0], jnp.asarray(sentences))
    due = refill_is_due(queue, jnp.asarray(first), jnp.asarray(free), count)
    waiting = max(sentences - first, 0)
    assert due == (waiting > 0 and sum(free) >= min(waiting, count))


def test_put_drops_entries_without_a_slot():
    tree = {"a": jnp.arange(G), "b": jnp.zeros((G, 2))}
    new = {"a": jnp.asarray([7, 8, 9]), "b": jnp.ones((3, 2))}
    after = put(tree, jnp.asarray([2, G, 0]), new)
    assert after["a"].tolist() == [9, 1, 7, 3]
    assert after["b"][:, 0].tolist() == [1, 0, 1, 0]
