# SPDX-License-Identifier: Apache-2.0
"""The queue of waiting sentences, and the loops that fill slots and collect results.

G slots hold the sentences in work. When enough slots are free, the next sentences take them, so no
slot waits for the longest translation of the others. The engine defines how new sentences enter its
state and what a step does.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from dat_jax.data.vocabulary import BOS, PAD
from dat_jax.decoding import beam
from dat_jax.decoding.beam import BeamState, Hypotheses
from dat_jax.decoding.compaction import first_where
from dat_jax.decoding.settings import SearchSettings
from dat_jax.types import Array, Bool, Int

State = TypeVar("State")


class Queue(NamedTuple):
    """Q sentences to translate, the first `count` of which are real."""

    source: jax.Array  # [Q, S] padded
    limits: jax.Array  # [Q] maximum tokens of each translation, EOS included
    numbers: jax.Array  # [Q] positions in the text; they seed random exits
    count: jax.Array  # []

    @property
    def size(self) -> int:
        """Q; as a place in the queue it means no sentence."""
        return len(self.source)


class Sentences(NamedTuple):
    """The sentences in G slots."""

    places: jax.Array  # [G] in the queue; Q for an empty slot
    numbers: jax.Array  # [G] in the text
    beams: BeamState  # limit 0 for an empty slot, which therefore counts as done


class Arrivals(NamedTuple):
    """Up to A sentences that leave the queue together."""

    slots: jax.Array  # [A] their slots; G marks an unused entry: ignore its other fields
    sentences: Sentences  # [A]
    source: jax.Array  # [A, S]

    @property
    def mask(self) -> Bool[Array, "A S"]:
        """True on source tokens, false on padding."""
        return self.source != PAD


class _Loop(NamedTuple):
    """The values that one refill passes to the next."""

    next_place: jax.Array  # [] of the first sentence still in the queue
    state: Any  # the engine's


def serve(
    queue: Queue,
    settings: SearchSettings,
    empty: State,
    sentences_of: Callable[[State], Sentences],
    admit: Callable[[State, Arrivals], State],
    step: Callable[[State], State],
) -> tuple[Hypotheses, State]:
    """Decodes all sentences of a queue.

    Args:
        queue: the sentences.
        settings: of the search: slots, sentences per refill, and so on.
        empty: the engine's state before the first sentence, any pytree.
        sentences_of: returns the sentences in a state, `no_sentences` at first.
        admit: puts new sentences into their slots of the state.
        step: decodes one more token of the sentences in work.

    Returns:
        The best hypothesis of each sentence, [Q], or the `n_best` of each, [Q, n_best]; and the
        engine's last state.
    """

    def found(beams: BeamState) -> Hypotheses:
        penalty, count = settings.length_penalty, settings.n_best
        return beam.n_best(beams, penalty, PAD, count) if count else beam.best(beams, penalty, PAD)

    def harvest(results: Hypotheses, places: Int[Array, " G"], beams: BeamState) -> Hypotheses:
        return put(results, places, found(beams))

    # The inner loop does not carry the results: it would copy them at every step.
    def refill_and_step(carry: tuple[_Loop, Hypotheses]) -> tuple[_Loop, Hypotheses]:
        (next_place, state), results = carry
        old = sentences_of(state)
        arrivals = _next_arrivals(queue, next_place, beam.done(old.beams), settings)
        leaving = jax.tree.map(lambda leaf: leaf.at[arrivals.slots].get(mode="clip"), old.beams)
        places = old.places.at[arrivals.slots].get(mode="fill", fill_value=queue.size)
        next_place += jnp.sum(arrivals.slots < settings.slots)
        loop = _Loop(next_place, admit(state, arrivals))
        return jax.lax.while_loop(steps_on, step_on, loop), harvest(results, places, leaving)

    def unfinished(carry: tuple[_Loop, Hypotheses]) -> Bool[Array, ""]:
        loop, _ = carry
        return (loop.next_place < queue.count) | jnp.any(~done_of(loop))

    def done_of(loop: _Loop) -> Bool[Array, " G"]:
        return beam.done(sentences_of(loop.state).beams)

    def steps_on(loop: _Loop) -> Bool[Array, ""]:
        done = done_of(loop)
        return jnp.any(~done) & ~refill_is_due(queue, loop.next_place, done, settings.refill)

    def step_on(loop: _Loop) -> _Loop:
        with jax.named_scope("step"):
            return loop._replace(state=step(loop.state))

    start = _Loop(jnp.zeros((), jnp.int32), empty)
    beams = max(1, settings.n_best)
    nothing = beam.init(jnp.zeros(queue.size, jnp.int32), beams, settings.length, BOS)
    results = found(nothing)
    end, results = jax.lax.while_loop(unfinished, refill_and_step, (start, results))
    last = sentences_of(end.state)
    return harvest(results, last.places, last.beams), end.state


def put(tree: State, slots: Int[Array, " A"], new: State) -> State:
    """Replaces these slots of arrays [G, ...]; entries whose slot is G are dropped."""
    return jax.tree.map(lambda old, new: old.at[slots].set(new, mode="drop"), tree, new)


def refill_is_due(
    queue: Queue, first: Int[Array, ""], free: Bool[Array, " G"], count: int
) -> Bool[Array, ""]:
    """True if sentences wait and there is room for a whole refill, or for all that wait."""
    waiting = queue.count - first
    return (waiting > 0) & (jnp.sum(free) >= jnp.minimum(waiting, count))


def no_sentences(queue: Queue, settings: SearchSettings) -> Sentences:
    """Returns empty slots."""
    zeros = jnp.zeros(settings.slots, jnp.int32)
    beams = beam.init(zeros, settings.beam_size, settings.length, BOS)
    return Sentences(zeros + queue.size, zeros, beams)


def _next_arrivals(
    queue: Queue, first: Int[Array, ""], free: Bool[Array, " G"], settings: SearchSettings
) -> Arrivals:
    """Takes the next sentences from the queue, as many as there are and have room.

    Args:
        queue: the sentences.
        first: the place of the next one.
        free: true for empty slots.
        settings: of the search.
    """
    slots, places = first_where(free, settings.refill), first + jnp.arange(settings.refill)
    is_real = (places < queue.count) & (slots < len(free))
    source, limits, numbers = (
        leaf.at[places].get(mode="clip") for leaf in (queue.source, queue.limits, queue.numbers)
    )
    beams = beam.init(limits, settings.beam_size, settings.length, BOS)
    return Arrivals(jnp.where(is_real, slots, len(free)), Sentences(places, numbers, beams), source)
