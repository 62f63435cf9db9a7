# SPDX-License-Identifier: Apache-2.0
"""The queue against a plain list: who arrives where, and whose translation is whose."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from dat_jax.data.vocabulary import PAD
from dat_jax.decoding import beam
from dat_jax.decoding.queue import (
    Queue,
    first_slots,
    harvest,
    next_arrivals,
    no_results,
    refill_is_due,
)

G, Q, S, T = 5, 7, 3, 4
SOURCE = np.arange(1, 1 + Q * S).reshape(Q, S)
LIMITS, NUMBERS = np.arange(10, 10 + Q), np.arange(100, 100 + Q)
free_slots = st.lists(st.booleans(), min_size=G, max_size=G)
places = st.integers(0, Q)


def queue_of(count: int) -> Queue:
    """A queue the first `count` sentences of which are there."""
    there = np.arange(Q) < count
    source = np.where(there[:, None], SOURCE, PAD)
    limits, numbers = np.where(there, LIMITS, 0), np.where(there, NUMBERS, 0)
    return Queue(*map(jnp.asarray, (source, limits, numbers, np.int32(count))))


@pytest.mark.parametrize("count", [1, 3, G, G + 2])
def test_the_first_slots_and_then_no_slot(count: int):
    condition = jnp.asarray([False, True, False, True, True])
    assert first_slots(condition, count).tolist() == ([1, 3, 4] + [G] * count)[:count]


@pytest.mark.parametrize("count", [1, 3, G])
@given(sentences=places, first=places, free=free_slots)
def test_as_many_arrive_as_there_are_and_have_room(
    count: int, sentences: int, first: int, free: list[bool]
):
    arrivals = next_arrivals(queue_of(sentences), jnp.asarray(first), jnp.asarray(free), count)
    room = [slot for slot in range(G) if free[slot]]
    pairs = list(zip(range(first, sentences), room, strict=False))[:count]
    rest = count - len(pairs)
    there = [place for place, _ in pairs]
    assert arrivals.there.tolist() == [True] * len(pairs) + [False] * rest
    assert arrivals.places.tolist() == there + [Q] * rest
    assert arrivals.slots.tolist() == [slot for _, slot in pairs] + [G] * rest
    assert arrivals.limits.tolist() == LIMITS[there].tolist() + [0] * rest
    assert arrivals.numbers[: len(pairs)].tolist() == NUMBERS[there].tolist()
    np.testing.assert_array_equal(arrivals.source[: len(pairs)], SOURCE[there])
    assert arrivals.mask[: len(pairs)].all()


@pytest.mark.parametrize("count", [1, 3, G])
@given(sentences=places, first=places, free=free_slots)
def test_a_refill_is_due_when_all_that_come_together_have_room(
    count: int, sentences: int, first: int, free: list[bool]
):
    due = refill_is_due(queue_of(sentences), jnp.asarray(first), jnp.asarray(free), count)
    left = max(sentences - first, 0)
    assert due == (left > 0 and sum(free) >= min(left, count))


def test_results_go_to_their_sentences_places():
    results = no_results(queue_of(Q), T)
    assert (results.lengths == 0).all()
    assert (results.tokens == PAD).all()
    beams = beam.init(jnp.full(G, T), 2, T, PAD)
    lengths = jnp.arange(1, 1 + G)
    beams = beams._replace(
        finished_lengths=jnp.stack([lengths, lengths], axis=1),
        finished_scores=jnp.zeros((G, 2)),
    )
    found = harvest(results, jnp.asarray([4, Q, 0, Q, 6]), beams)
    assert found.lengths.tolist() == [3, 0, 0, 0, 1, 0, 5]
    again = harvest(found, jnp.full(G, Q), beams)
    jax.tree.map(np.testing.assert_array_equal, found, again)
