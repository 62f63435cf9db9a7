# SPDX-License-Identifier: Apache-2.0
"""Which stage is next, and how much is worked on at a time: what must hold whatever the numbers."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given

from dat_jax.decoding.schedule import choose_sizes, default_cohort, next_stage, pays, refill_size
from dat_jax.exits.policies import Signal

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


many = st.integers(1, 10_000)


@given(
    sentences=many,
    beam_size=st.integers(1, 12),
    cohort_size=st.integers(1, 2_000),
    pool_size=st.sampled_from([0, 1, 7, 64, 5_000]),
    most_slots=st.integers(-3, 10_000) | st.just(0),
)
def test_sizes_fit_each_other_and_what_there_is(
    sentences: int, beam_size: int, cohort_size: int, pool_size: int, most_slots: int
):
    sizes = choose_sizes(sentences, beam_size, cohort_size, pool_size, most_slots)
    assert sizes.slots >= 1
    assert sizes.slots <= max(1, most_slots)
    assert sizes.slots < 2 * sentences
    assert sizes.slots <= pool_size or not pool_size
    assert sizes.cohort >= beam_size
    assert sizes.cohort % beam_size == 0
    assert sizes.cohort < cohort_size + beam_size
    assert sizes.cohort <= sizes.slots * beam_size


@pytest.mark.parametrize("beam_size", [1, 4])
def test_what_is_asked_for_is_what_there_is_if_sentences_fill_it(beam_size: int):
    sizes = choose_sizes(100_000, beam_size, 48, 0, 100_000)
    assert sizes.cohort == 48
    assert sizes.slots * beam_size >= 2 * sizes.cohort  # several cohorts
    for pool_size in (20, 77, 300):
        assert choose_sizes(100_000, beam_size, 16, pool_size, 100_000) == (16, pool_size)


@pytest.mark.parametrize(
    ("batch_size", "beam_size", "rows"),
    [(1, 1, 1), (8, 1, 8), (512, 1, 512), (1, 4, 4), (8, 4, 32), (32, 4, 64), (128, 5, 128)],
)
def test_a_cohort_has_the_rows_of_a_small_batch(batch_size: int, beam_size: int, rows: int):
    assert default_cohort(batch_size, beam_size) == rows


@pytest.mark.parametrize(
    ("sentences", "cohort"), [(1, 1), (30, 11), (128, 43), (256, 64), (512, 86), (1_024, 171)]
)
def test_a_pool_of_few_sentences_has_smaller_cohorts(sentences: int, cohort: int):
    """Three at the least; six where that leaves 64 rows to each."""
    assert choose_sizes(sentences, 1, 512, 0, 100_000).cohort == cohort


def test_few_sizes_serve_all_numbers_of_sentences():
    """Each compiles a program of its own."""
    sizes = {choose_sizes(sentences, 5, 128, 0, 10_000) for sentences in range(1, 3_000)}
    assert len(sizes) <= 13
    unlimited = {choose_sizes(s, 1, 10_000, 0, 10**9).slots for s in range(1, 3_000)}
    assert all(slots.bit_count() == 1 for slots in unlimited)


@given(slots=st.integers(1, 2_000), source_length=st.integers(1, 2_000))
def test_a_refill_is_worth_encoding_and_leaves_few_slots_empty(slots: int, source_length: int):
    refill = refill_size(slots, source_length)
    assert 1 <= refill <= slots
    assert refill == slots or refill * source_length >= 256
    assert refill <= slots / 8 or (refill - 1) * source_length < 256


@pytest.mark.parametrize("signal", [signal for signal in Signal if signal is not Signal.NOTHING])
def test_it_pays_for_many_rows_whose_exits_are_early(signal: Signal):
    for share in (0.0, 0.2, 0.7):
        assert not pays(1, signal, share)
        assert not pays(64, signal, share)
        assert pays(256, signal, share)
        assert pays(8_192, signal, share)
    for share in (0.8, 1.0):
        assert not pays(8_192, signal, share)


def test_it_does_not_pay_where_all_exit_at_one_depth():
    assert not pays(8_192, Signal.NOTHING, 0.0)
