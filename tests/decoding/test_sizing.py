# SPDX-License-Identifier: Apache-2.0
"""Sizes and the choice of an engine: what must hold whatever the numbers."""

import dataclasses

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dat_jax.config import DecodingConfig
from dat_jax.decoding.sizing import (
    Engine,
    SearchSettings,
    choose_engine,
    choose_settings,
    default_cohort,
    platform_of,
    refill_size,
    room_for,
)
from dat_jax.exits.questions import Rule
from dat_jax.exits.rules import Confidence, Fixed, SequenceMultinomial, Uniform
from tests.tiny import tiny_config

CPU, DECODING = platform_of("cpu"), tiny_config().decoding
CHOOSY: list[Rule] = [Confidence((0.5, 0.5)), SequenceMultinomial(), Uniform(3, 0)]


def decoding(**changes: int) -> DecodingConfig:
    """The default settings with some changed."""
    return dataclasses.replace(DECODING, **changes)


def sizes_of(
    sentences: int, most_slots: int = 100_000, engine: Engine = "continuous", **changes: int
) -> SearchSettings:
    """Settings that are chosen for so many sentences of up to 16 tokens."""
    return choose_settings(engine, decoding(**changes), sentences, 16, 40, most_slots, CPU)


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
    sizes = sizes_of(
        sentences,
        most_slots,
        beam_size=beam_size,
        cohort_size=cohort_size,
        pool_size=pool_size,
    )
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
    sizes = sizes_of(100_000, beam_size=beam_size, cohort_size=48)
    assert sizes.cohort == 48
    assert sizes.slots * beam_size >= 2 * sizes.cohort  # several cohorts
    for pool_size in (20, 77, 300):
        sizes = sizes_of(100_000, beam_size=beam_size, cohort_size=16, pool_size=pool_size)
        assert (sizes.cohort, sizes.slots) == (16, pool_size)


@pytest.mark.parametrize(
    ("batch_size", "beam_size", "rows"),
    [(1, 1, 1), (8, 1, 8), (512, 1, 512), (1, 4, 4), (8, 4, 32), (32, 4, 64), (128, 5, 128)],
)
def test_a_cohort_has_the_rows_of_a_small_batch(batch_size: int, beam_size: int, rows: int):
    found = default_cohort(decoding(batch_size=batch_size, beam_size=beam_size), CPU)
    assert found == rows


@pytest.mark.parametrize(
    ("sentences", "cohort"), [(1, 1), (30, 11), (128, 43), (256, 64), (512, 86), (1_024, 171)]
)
def test_a_pool_of_few_sentences_has_smaller_cohorts(sentences: int, cohort: int):
    """Three at the least; six where that leaves 64 rows to each."""
    assert sizes_of(sentences, beam_size=1, cohort_size=512).cohort == cohort


def test_few_sizes_serve_all_numbers_of_sentences():
    """Each compiles a program of its own."""
    sizes = {sizes_of(s, 10_000, beam_size=5, cohort_size=128) for s in range(1, 3_000)}
    assert len(sizes) <= 13
    wide = {"beam_size": 1, "cohort_size": 10_000}
    unlimited = {sizes_of(s, 10**9, **wide).slots for s in range(1, 3_000)}
    assert all(slots.bit_count() == 1 for slots in unlimited)


@given(slots=st.integers(1, 2_000), source_length=st.integers(1, 2_000))
def test_a_refill_is_worth_encoding_and_leaves_few_slots_empty(slots: int, source_length: int):
    refill = refill_size(slots, source_length, CPU)
    assert 1 <= refill <= slots
    assert refill == slots or refill * source_length >= 256
    assert refill <= slots / 8 or (refill - 1) * source_length < 256


def test_in_lockstep_a_batch_of_sentences_takes_each_step_together():
    sizes = sizes_of(1_000, engine="lockstep", beam_size=4, batch_size=24)
    assert (sizes.slots, sizes.cohort) == (24, 96)
    assert sizes_of(20, engine="lockstep", beam_size=4, batch_size=24).slots == 24


def test_a_sentence_or_a_few_wait_for_no_program_of_their_own():
    few = [sizes_of(s, engine="lockstep", beam_size=4, batch_size=24) for s in range(1, 17)]
    assert [sizes.slots for sizes in few] == [1] + [16] * 15
    assert len(set(few)) == 2
    assert sizes_of(5, engine="lockstep", beam_size=1, batch_size=3).slots == 3


@given(st.integers(1, 5_000))
def test_a_room_is_the_next_power_of_two(length: int):
    room = room_for(length, CPU)
    assert room >= length
    assert room == 16 or (room.bit_count() == 1 and room < 2 * length)


@pytest.mark.parametrize("rule", CHOOSY, ids=str)
def test_many_rows_whose_exits_are_early_are_decoded_continuously(rule: Rule):
    def engine(rows: int, share: float) -> str:
        return choose_engine("auto", rule, rows, share, CPU).engine

    for share in (0.0, 0.2, 0.7):
        assert [engine(rows, share) for rows in (1, 64, 255)] == ["lockstep"] * 3
        assert [engine(rows, share) for rows in (256, 8_192)] == ["continuous"] * 2
    assert [engine(8_192, share) for share in (0.8, 1.0)] == ["lockstep"] * 2


def test_where_all_exit_at_one_depth_there_is_nothing_to_sort_by():
    choice = choose_engine("auto", Fixed(2), 8_192, 0.0, CPU)
    assert choice == ("lockstep", "all tokens exit at one depth")


@pytest.mark.parametrize("name", ["gpu", "tpu", "unheard-of"])
def test_where_nothing_was_timed_the_reference_decodes(name: str):
    choice = choose_engine("auto", CHOOSY[0], 8_192, 0.0, platform_of(name))
    assert choice.engine == "lockstep"
    assert "not been timed" in choice.reason


@pytest.mark.parametrize("asked", ["continuous", "lockstep"])
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_an_engine_that_is_asked_for_decodes_whatever_there_is(asked: Engine, platform: str):
    for rule in (Fixed(1), CHOOSY[0]):
        for rows, share in ((1, 0.0), (10_000, 1.0)):
            choice = choose_engine(asked, rule, rows, share, platform_of(platform))
            assert choice == (asked, "asked for")


def test_lockstep_compiles_few_programs_however_many_sentences_need_the_same_room():
    counts = range(1, 1_000)
    sizes = {sizes_of(count, engine="lockstep", batch_size=128).slots for count in counts}
    assert sizes == {1, 16, 32, 64, 128}
    for count in counts:
        slots = sizes_of(count, engine="lockstep", batch_size=128).slots
        assert slots in (16, 128) or slots < 2 * count
