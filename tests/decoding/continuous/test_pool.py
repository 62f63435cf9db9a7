# SPDX-License-Identifier: Apache-2.0
"""The pool against plain lists: who waits, who is next, who may advance."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from dat_jax.data.vocabulary import BOS
from dat_jax.decoding import beam
from dat_jax.decoding.continuous.packed import pack
from dat_jax.decoding.continuous.pool import (
    CLASSIFIED,
    IDLE,
    Pool,
    Slots,
    idle_rows,
    longest_waiting,
    next_stage,
    place,
    ready,
    rows_of,
    take,
    waiting,
)
from dat_jax.decoding.queue import Sentences

G, J, T, Q = 5, 3, 4, 6
R = G * J
STAGES = 4
stages = st.lists(st.integers(IDLE, STAGES), min_size=R, max_size=R)
ticks = st.lists(st.integers(0, 5) | st.integers(0, 2**24), min_size=R, max_size=R)


def empty_pool(slots: int = G) -> Pool:
    """A pool with nothing in it."""
    zeros, limits = jnp.zeros(slots, jnp.int32), jnp.zeros(slots, jnp.int32)
    sentences = Sentences(zeros + 9, zeros, beam.init(limits, J, T, BOS))
    rows = idle_rows(slots * J, Q, carry_width=2)
    return Pool(pack(Slots(sentences, zeros)), pack(rows))


def random_pool(seed: int, slots: int = G) -> Pool:
    """A pool all of whose leaves are filled with chance, and all differ."""
    generator = np.random.default_rng(seed)

    def fill(leaf: jax.Array) -> jax.Array:
        return jnp.asarray(generator.permutation(leaf.size).reshape(leaf.shape), leaf.dtype)

    return Pool(*(pack(jax.tree.map(fill, packed.tree)) for packed in empty_pool(slots)))


def pool_of(row_stages: list[int], since: list[int]) -> Pool:
    """A pool whose rows wait for these stages since these ticks."""
    pool = empty_pool()
    rows = pool.rows.tree._replace(stage=jnp.asarray(row_stages), since=jnp.asarray(since))
    return pool._replace(rows=pack(rows))


def assert_equal(one: Pool, other: Pool) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_in_an_empty_pool_nobody_waits_and_nobody_is_ready():
    pool = empty_pool()
    assert waiting(pool, STAGES).tolist() == [0] * STAGES
    assert not ready(pool).any()
    assert longest_waiting(pool, jnp.asarray(1), 4).tolist() == [R] * 4
    assert pool.beam_size == J


@given(stages)
def test_waiting_counts_the_rows_of_each_stage(row_stages: list[int]):
    counts = [row_stages.count(stage) for stage in range(1, STAGES + 1)]
    assert waiting(pool_of(row_stages, [0] * R), STAGES).tolist() == counts


@pytest.mark.parametrize("count", [1, 4, R, R + 5])
@given(row_stages=stages, since=ticks, stage=st.integers(1, STAGES))
def test_first_come_first_served(count: int, row_stages: list[int], since: list[int], stage: int):
    found = longest_waiting(pool_of(row_stages, since), jnp.asarray(stage), count).tolist()
    there = [row for row in range(R) if row_stages[row] == stage]
    there.sort(key=lambda row: since[row])  # stable: of equal ones the first
    assert found == (there + [R] * count)[:count]


@given(stages)
def test_a_sentence_is_ready_when_all_rows_with_a_hypothesis_are_classified(row_stages: list[int]):
    of_slots = [set(row_stages[slot * J : slot * J + J]) - {IDLE} for slot in range(G)]
    expected = [found == {CLASSIFIED} for found in of_slots]
    assert ready(pool_of(row_stages, [0] * R)).tolist() == expected


def test_rows_lie_together_by_sentence():
    assert rows_of(jnp.asarray([2, 0]), J).tolist() == [6, 7, 8, 0, 1, 2]
    assert (rows_of(jnp.asarray([G]), J) >= R).all()


def test_what_is_taken_is_what_lies_in_these_slots():
    pool, slots = random_pool(0), jnp.asarray([3, 0])
    some = take(pool, slots)
    jax.tree.map(
        lambda x, whole: np.testing.assert_array_equal(x, whole[slots]),
        some.slots.tree,
        pool.slots.tree,
    )
    jax.tree.map(
        lambda x, whole: np.testing.assert_array_equal(x, whole[rows_of(slots, J)]),
        some.rows.tree,
        pool.rows.tree,
    )


def test_what_is_placed_lies_where_it_was_put_and_nothing_else_moves():
    pool, new = random_pool(0), random_pool(1, slots=3)
    slots = jnp.asarray([4, G, 1])  # the second is dropped
    after = place(pool, slots, new)
    others, kept = jnp.asarray([0, 2, 3]), jnp.asarray([0, 2])
    assert_equal(take(after, slots[kept]), take(new, kept))
    assert_equal(take(after, others), take(pool, others))


@pytest.mark.parametrize("slots", [[0], [4, 2, 0], [G, 1], [G, G]])
def test_to_put_back_what_was_taken_changes_nothing(slots: list[int]):
    pool, where = random_pool(2), jnp.asarray(slots)
    assert_equal(place(pool, where, take(pool, where)), pool)


next_stage_of = jax.jit(next_stage, static_argnums=1)


@pytest.mark.parametrize(
    ("waiting", "stage"),
    [
        ([1, 0, 0], 0),
        ([0, 0, 1], 2),
        ([3, 2, 1], 0),
        ([2, 3, 1], 1),
        ([2, 2, 2], 2),
        ([9, 4, 1], 1),  # both cohorts are full
        ([9, 3, 1], 0),
        ([9, 5, 4], 2),
    ],
)
def test_the_fullest_cohort_is_next_and_of_equal_ones_the_deepest(waiting: list[int], stage: int):
    assert next_stage_of(jnp.asarray(waiting), 4) == stage


@given(st.lists(st.integers(0, 12), min_size=5, max_size=5).filter(any), st.sampled_from([1, 4, 9]))
def test_no_stage_without_rows_is_run_while_others_have_some(waiting: list[int], cohort: int):
    stage = int(next_stage_of(jnp.asarray(waiting), cohort))
    fill = [min(rows, cohort) for rows in waiting]
    assert fill[stage] == max(fill) > 0
    assert all(rows < fill[stage] for rows in fill[stage + 1 :])
