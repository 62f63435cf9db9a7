# SPDX-License-Identifier: Apache-2.0
"""Sentences that wait for room in an engine, and where their translations are put.

An engine has G slots for sentences. Whenever some are free it lets the next ones in, so that no
slot waits for the longest translation of its neighbours.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.data.vocabulary import PAD
from dat_jax.decoding import beam
from dat_jax.decoding.beam import BeamState, Hypotheses
from dat_jax.types import Array, Bool, Int


class Queue(NamedTuple):
    """Q sentences to translate, the first `count` of which are there."""

    source: jax.Array  # [Q, S] padded
    limits: jax.Array  # [Q] the most tokens that each translation may have, EOS counted
    numbers: jax.Array  # [Q] in the text, from which chance follows if there is any
    count: jax.Array  # []

    @property
    def size(self) -> int:
        """Q; as a place in the queue it stands for no sentence."""
        return len(self.source)


class Arrivals(NamedTuple):
    """Up to A sentences that leave the queue together."""

    there: jax.Array  # [A] whether there is one
    slots: jax.Array  # [A] where they go; G where there is none
    places: jax.Array  # [A] in the queue; Q where there is none
    source: jax.Array  # [A, S]
    limits: jax.Array  # [A] 0 where there is none
    numbers: jax.Array  # [A]

    @property
    def mask(self) -> Bool[Array, "A S"]:
        """Where the source has tokens."""
        return self.source != PAD


def next_arrivals(
    queue: Queue, first: Int[Array, ""], free: Bool[Array, " G"], count: int
) -> Arrivals:
    """The next `count` sentences, or as many as there are or have room.

    Args:
        queue: the sentences.
        first: the place of the next one.
        free: the slots that have room.
        count: how many may arrive, A.
    """
    slots, places = first_slots(free, count), first + jnp.arange(count)
    there = (places < queue.count) & (slots < len(free))
    return Arrivals(
        there,
        jnp.where(there, slots, len(free)),
        jnp.where(there, places, queue.size),
        queue.source.at[places].get(mode="clip"),
        jnp.where(there, queue.limits.at[places].get(mode="clip"), 0),
        queue.numbers.at[places].get(mode="clip"),
    )


def refill_is_due(
    queue: Queue, first: Int[Array, ""], free: Bool[Array, " G"], count: int
) -> Bool[Array, ""]:
    """Whether sentences are left, and there is room for all that arrive together."""
    left = queue.count - first
    return (left > 0) & (jnp.sum(free) >= jnp.minimum(left, count))


def first_slots(condition: Bool[Array, " G"], count: int) -> Int[Array, " A"]:
    """The first `count` slots where `condition` holds; G for no slot where there are fewer."""
    return jnp.nonzero(condition, size=count, fill_value=len(condition))[0]


def no_results(queue: Queue, length: int) -> Hypotheses:
    """The results before anything is translated, [Q], with room for `length` tokens."""
    return beam.best(beam.init(jnp.zeros(queue.size, jnp.int32), 1, length, PAD))


def harvest(results: Hypotheses, places: Int[Array, " G"], beams: BeamState) -> Hypotheses:
    """The results with the best hypotheses of sentences from these places in the queue."""
    return jax.tree.map(
        lambda old, new: old.at[places].set(new, mode="drop"), results, beam.best(beams)
    )
