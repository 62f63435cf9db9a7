# SPDX-License-Identifier: Apache-2.0
"""Sizes: properties that hold for all numbers, and some exact values."""

import dataclasses
import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dat_jax.config import DecodingConfig
from dat_jax.decoding.settings import SearchSettings
from dat_jax.decoding.sizing import (
    PLATFORMS,
    Platform,
    choose_settings,
    refill_size,
    room_for,
    row_sizes,
)
from dat_jax.exits.questions import Rule, Scope
from dat_jax.exits.rules import Confidence, Fixed, SequenceMultinomial
from tests.tiny import tiny_config

CPU, CONFIG = PLATFORMS["cpu"], tiny_config()
MUCH = 1 << 40
FIXED = Fixed(2)


def decoding(**changes: float) -> DecodingConfig:
    """The default settings with some changed."""
    return dataclasses.replace(CONFIG.decoding, **changes)


def settings_of(
    sentences: int,
    memory: int = MUCH,
    rule: Rule = FIXED,
    platform: Platform = CPU,
    **changes: int,
) -> SearchSettings:
    """The settings chosen for sentences of up to 16 tokens."""
    return choose_settings(
        rule, CONFIG.model, decoding(**changes), sentences, 16, 40, memory, platform
    )


def test_a_gap_is_for_beams():
    assert settings_of(9, MUCH, beam_size=2, trailing_gap=0.5).trailing_gap == 0.5
    assert settings_of(9, MUCH, beam_size=1, trailing_gap=0.5).trailing_gap == 0


@given(
    sentences=st.integers(1, 10_000),
    beam_size=st.integers(1, 12),
    batch_size=st.integers(0, 1_000),
    memory=st.integers(1, 1 << 32),
)
def test_sizes_are_consistent_and_bounded(
    sentences: int, beam_size: int, batch_size: int, memory: int
):
    found = settings_of(sentences, memory, beam_size=beam_size, batch_size=batch_size)
    assert found.slots >= 1
    assert found.slots <= max(16, 2 * sentences - 1)
    assert found.slots <= batch_size or not batch_size
    assert found.rows == found.slots * beam_size == found.sizes[-1]
    assert list(found.sizes) == sorted(set(found.sizes))
    assert found.windows == (20, 40)


def test_rows_and_memory_bound_the_sentences_in_work():
    assert settings_of(100_000, beam_size=1, batch_size=0).slots == CPU.rows
    assert settings_of(100_000, beam_size=5, batch_size=0).slots == CPU.rows // 5
    slot = 2 * (5 * 40 + 16) * (3 + 1) * 8 * 4  # keys and values in float32: three blocks, a copy
    encoder = 3 * 16 * 16 * CONFIG.model.encoder_heads * 4
    memory = 4 * (7 * (slot + encoder // 8) + encoder)
    assert settings_of(100_000, memory, beam_size=5, batch_size=0).slots == 7
    assert settings_of(100_000, memory, beam_size=5, batch_size=90).slots == 14
    assert settings_of(100_000, 9 * memory, beam_size=5, batch_size=90).slots == 90
    assert settings_of(100_000, 1, beam_size=5, batch_size=0).slots == 1


def test_few_different_programs_serve_all_counts_of_sentences():
    few = [settings_of(count, batch_size=24) for count in range(1, 17)]
    assert [settings.slots for settings in few] == [1] + [16] * 15
    assert len(set(few)) == 2
    assert settings_of(5, batch_size=3).slots == 3
    sizes = {settings_of(count, batch_size=128).slots for count in range(1, 1_000)}
    assert sizes == {1, 16, 32, 64, 128}


def test_empty_slots_take_little_memory():
    slot = 2 * (40 + 16) * (3 + 1) * 8 * 4
    for sentences, slots in ((2, 3), (5, 8), (9, 16)):
        found = settings_of(sentences, memory=64 * 3 * slot, beam_size=1, batch_size=0)
        assert found.slots == slots


@given(rows=st.integers(1, 5_000), fewest=st.integers(1, 64))
def test_a_few_sizes_span_the_fewest_to_all_rows(rows: int, fewest: int):
    sizes = row_sizes(rows, fewest, Scope.TOKEN)
    assert sizes[-1] == rows
    assert sizes[0] == min(rows, fewest)
    assert all(small < large <= 8 * small for small, large in itertools.pairwise(sizes))
    assert all(size >= 2 * fewest for size in sizes[1:-1])
    together = row_sizes(rows, fewest, Scope.TEXT)
    assert together[-1] == rows
    assert all(small < large <= 4 * small for small, large in itertools.pairwise(together))
    assert all(size >= 2 * fewest for size in together[:-1])
    assert together[0] <= 8 * fewest


def test_row_sizes():
    assert row_sizes(512, 8, Scope.TOKEN) == (8, 16, 64, 128, 192, 256, 512)
    assert row_sizes(320, 8, Scope.TOKEN) == (8, 40, 80, 120, 160, 320)
    assert row_sizes(5, 8, Scope.TOKEN) == (5,)
    assert row_sizes(64, 8, Scope.SENTENCE) == (16, 32, 64)
    assert row_sizes(2_560, 8, Scope.TEXT) == (40, 160, 640, 1_280, 2_560)
    assert row_sizes(160, 8, Scope.TEXT) == (40, 80, 160)
    assert row_sizes(12, 8, Scope.TEXT) == (12,)


def test_upper_blocks_cache_states_for_token_level_rules():
    choosy: list[Rule] = [Confidence((0.5, 0.5)), SequenceMultinomial(), Fixed(2)]
    half, none = Platform(projected=0.5), Platform(projected=0.0)
    assert [settings_of(9, rule=rule, platform=half).projected for rule in choosy] == [2, 3, 2]
    assert [settings_of(9, rule=rule, platform=none).projected for rule in choosy] == [0, 0, 0]


@given(slots=st.integers(1, 2_000), source_length=st.integers(1, 2_000))
def test_a_refill_is_large_enough_to_encode_and_leaves_few_slots_empty(
    slots: int, source_length: int
):
    refill = refill_size(slots, source_length, CPU)
    assert 1 <= refill <= slots
    assert refill == slots or refill * source_length >= 256
    assert refill <= slots / 8 or (refill - 1) * source_length < 256


@given(st.integers(1, 5_000))
def test_a_room_is_a_power_of_two(length: int):
    room = room_for(length, CPU)
    assert room >= length
    assert room == 16 or (room.bit_count() == 1 and room < 2 * length)


@pytest.mark.parametrize("name", [*PLATFORMS, "gpu"])
def test_the_last_window_is_the_whole_room(name: str):
    platform = PLATFORMS.get(name, Platform())
    assert settings_of(9, platform=platform).windows[-1] == 40
