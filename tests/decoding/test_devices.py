# SPDX-License-Identifier: Apache-2.0
"""A search on several devices equals the search on one, and spreads the work evenly."""

import dataclasses
from typing import Any

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dat_jax.config import DecodingConfig
from dat_jax.data.vocabulary import EOS
from dat_jax.decoding.devices import deal
from dat_jax.decoding.search import SearchResult, search
from dat_jax.decoding.trained import TrainedModel
from dat_jax.exits.rules import Uniform
from tests.decoding.lively import make_model
from tests.tiny import tiny_config

CONFIG = tiny_config()


def trained_on(devices: int) -> TrainedModel:
    """A model whose parameters are on that many devices."""
    model, params = make_model("tied")
    mesh = Mesh(np.asarray(jax.devices()[:devices]), ("devices",), (AxisType.Auto,))
    placed = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    return TrainedModel(dataclasses.replace(CONFIG, model=model.config), model, placed)


def sources_of(count: int, longest: int = 12) -> list[list[int]]:
    generator = np.random.default_rng(count)
    lengths = generator.integers(0, longest, count)
    return [[*generator.integers(4, 11, length).tolist(), EOS] for length in lengths]


def decoding(**changes: Any) -> DecodingConfig:
    sizes = {"max_length_ratio": 1.0, "max_length_extra": 2, "batch_size": 8}
    return dataclasses.replace(CONFIG.decoding, **(sizes | changes))


def assert_same(found: SearchResult, expected: SearchResult) -> None:
    for one, other in zip(found.hypotheses, expected.hypotheses, strict=True):
        assert (one.tokens, one.exits) == (other.tokens, other.exits)
        np.testing.assert_allclose(one.score, other.score, rtol=1e-5)
    np.testing.assert_array_equal(found.cost.work.rows, expected.cost.work.rows)


def test_eight_devices_equal_one():
    sources = sources_of(41)
    numbers = list(range(100, 141))  # draws follow from these, not from the device
    settings = decoding(beam_size=3)
    results = {
        devices: search(trained_on(devices), Uniform(4, 3), sources, settings, numbers=numbers)
        for devices in (1, 8)
    }
    assert len({exit for h in results[1].hypotheses for exit in h.exits}) > 1
    assert_same(results[8], results[1])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_devices_without_sentences_are_fine(count: int):
    sources, rule = sources_of(3)[:count], Uniform(4, 3)
    one, eight = (search(trained_on(n), rule, sources, decoding(beam_size=1)) for n in (1, 8))
    assert_same(eight, one)
    assert len(eight.hypotheses) == count


@given(lengths=st.lists(st.integers(1, 90)), devices=st.integers(1, 9))
def test_deal_spreads_all_items_evenly(lengths: list[int], devices: int):
    items = sorted(lengths, reverse=True)
    hands = deal(items, devices)
    assert len(hands) == devices
    assert sorted((item for hand in hands for item in hand), reverse=True) == items
    counts, sums = [len(hand) for hand in hands], [sum(hand) for hand in hands]
    assert max(counts) <= min(counts) + 1
    assert all(hand == sorted(hand, reverse=True) for hand in hands)
    assert max(sums) - min(sums) <= 2 * max(items, default=0)


@pytest.mark.slow
def test_the_busiest_device_is_close_to_the_mean():
    sources = sources_of(8_000)
    settings = decoding(beam_size=1, batch_size=64)
    found = search(trained_on(8), Uniform(4, 3), sources, settings)
    mean = int(found.cost.work.computed[:-1].sum()) / 8
    assert mean <= found.cost.busiest <= 1.15 * mean
