# SPDX-License-Identifier: Apache-2.0
"""The search from token ids to hypotheses: groups, order and limits; sizes change nothing."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest

from dat_jax.config import DecodingConfig
from dat_jax.data.vocabulary import EOS
from dat_jax.decoding import devices
from dat_jax.decoding import search as module
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.cost import DecodeCost
from dat_jax.decoding.devices import Ran
from dat_jax.decoding.queue import Queue
from dat_jax.decoding.search import Hypothesis, search
from dat_jax.decoding.settings import SearchSettings
from dat_jax.decoding.sizing import Platform
from dat_jax.decoding.trained import TrainedModel
from dat_jax.errors import UserError
from dat_jax.exits.questions import Rule
from dat_jax.exits.rules import Confidence, Fixed, Uniform
from tests.tiny import SOURCE_VOCABULARY, random_params, tiny_config, tiny_model

DECODING = {"beam_size": 2, "max_length_ratio": 0.5, "max_length_extra": 3, "batch_size": 8}
CONFIG = tiny_config(decoding=DECODING)


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    """A model with random weights whose choices vary."""
    model = tiny_model()
    return TrainedModel(CONFIG, model, jax.tree.map(lambda x: 2 * x, random_params(model, 1)))


def sources_of(count: int, longest: int = 20) -> list[list[int]]:
    """Sources of varied lengths; some need a larger room than others."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(0, longest, count)
    return [[*generator.integers(4, SOURCE_VOCABULARY, n).tolist(), EOS] for n in lengths]


def decoding(**changes: Any) -> DecodingConfig:
    return dataclasses.replace(CONFIG.decoding, **changes)


def assert_same(found: Sequence[Hypothesis], expected: Sequence[Hypothesis]) -> None:
    """Asserts equal hypotheses; scores may differ by rounding."""
    for one, other in zip(found, expected, strict=True):
        assert (one.tokens, one.exits) == (other.tokens, other.exits)
        assert one.score == pytest.approx(other.score, rel=1e-4)


PLAIN = Platform(fewest_rows=1_000_000)  # one size, one window, all blocks project


@pytest.mark.parametrize(
    ("rule", "beam_size", "batch_size", "platform"),
    [
        (Uniform(3, 0), 1, 8, Platform(fewest_rows=2, windows=(3, 1), projected=0.4)),
        (Confidence((0.5, 0.8)), 2, 3, Platform(fewest_rows=1, windows=(2, 1), projected=0.0)),
    ],
    ids=str,
)
def test_sizes_change_nothing(
    trained: TrainedModel,
    rule: Rule,
    beam_size: int,
    batch_size: int,
    platform: Platform,
):
    sources = sources_of(24, longest=14)
    asked = decoding(beam_size=beam_size, batch_size=0)
    expected = search(trained, rule, sources, asked, platform=PLAIN)
    assert len({exit for h in expected.hypotheses for exit in h.exits}) > 1
    assert expected.cost.work.computed[0] > expected.cost.work.rows[0]
    assert all(len(s.sizes) == len(s.windows) == 1 for s in expected.settings)
    few = dataclasses.replace(asked, batch_size=batch_size)
    result = search(trained, rule, sources, few, platform=platform)
    assert_same(result.hypotheses, expected.hypotheses)
    assert result.cost.work.rows.tolist() == expected.cost.work.rows.tolist()
    assert result.cost.work.computed.sum() < expected.cost.work.computed.sum()
    assert all(len(s.sizes) > 1 and len(s.windows) > 1 for s in result.settings)
    assert {s.slots for s in result.settings} == {batch_size}


def test_hypotheses_come_in_the_order_of_their_sources(trained: TrainedModel):
    sources = sources_of(24)
    forward = search(trained, Fixed(2), sources, CONFIG.decoding)
    backward = search(trained, Fixed(2), sources[::-1], CONFIG.decoding).hypotheses
    assert len(forward.settings) == 2  # rooms
    forward = forward.hypotheses
    assert len({hypothesis.tokens for hypothesis in forward}) > 1
    assert_same(backward[::-1], forward)


def test_draws_follow_the_numbers_of_sources_not_their_order(trained: TrainedModel):
    numbers, settings = [9, 4, 0, 2, 7, 5, 12, 3], decoding(beam_size=1)
    sources = [[5, 7, EOS]] * len(numbers)
    found = search(trained, Uniform(3, 0), sources, settings, numbers=numbers).hypotheses
    exits = dict(zip(numbers, [hypothesis.exits for hypothesis in found], strict=True))
    assert len(set(exits.values())) > 3
    ordered = search(trained, Uniform(3, 0), sources, settings, numbers=sorted(numbers)).hypotheses
    assert [h.exits for h in ordered] == [exits[number] for number in sorted(numbers)]


def test_limits_follow_from_the_length_unless_given(trained: TrainedModel):
    sources = sources_of(24)
    for hypothesis, source in zip(
        search(trained, Fixed(2), sources, CONFIG.decoding).hypotheses, sources, strict=True
    ):
        assert hypothesis.tokens[-1] == EOS
        assert len(hypothesis.tokens) == len(hypothesis.exits) <= 0.5 * len(source) + 3
    sources, limits = sources_of(6, longest=12), [1, 30, 2, 1, 9, 30]
    found = search(trained, Fixed(2), sources, CONFIG.decoding, limits=limits).hypotheses
    assert all(len(h.tokens) <= limit for h, limit in zip(found, limits, strict=True))
    assert found[0].tokens == (EOS,)
    assert max(len(h.tokens) for h in found) > 13  # more than the lengths alone allow


def test_an_empty_source_has_an_empty_translation_at_any_limit(trained: TrainedModel):
    sources = [[5, 6, EOS], [EOS]]
    found = search(trained, Fixed(2), sources, CONFIG.decoding, limits=[7, 7])
    spoken, silent = (hypothesis.tokens for hypothesis in found.hypotheses)
    assert len(spoken) > 1
    assert silent == (EOS,)


def test_no_sources_give_no_hypotheses(trained: TrainedModel):
    found = search(trained, Fixed(2), [], CONFIG.decoding)
    assert found.hypotheses == ()
    assert all(not counts.any() for counts in found.cost.work)


def test_rules_of_one_kind_and_depth_share_a_program(trained: TrainedModel):
    sources, settings = sources_of(6, longest=12), decoding(beam_size=1, batch_size=6)
    devices._compile.cache_clear()
    first = search(trained, Confidence((1.0, 1.0)), sources, settings)
    again = search(trained, Confidence((1e-9, 1.0)), sources[::-1], settings)
    assert devices._compile.cache_info().misses == 1
    assert first.cost.seconds_compiling > 50 * again.cost.seconds_compiling
    assert {exit for h in first.hypotheses for exit in h.exits} == {3}
    assert {exit for h in again.hypotheses for exit in h.exits} == {1}
    for rule in (Confidence((0.0, 1.0)), Fixed(3), Fixed(1)):
        search(trained, rule, sources, settings)
    assert devices._compile.cache_info().misses == 4


@dataclasses.dataclass(frozen=True)
class FixedWithAllBlocks(Fixed):
    """The same rule, but the decoder keeps the blocks above its exit."""

    def deepest(self, num_layers: int) -> int:
        return num_layers


@dataclasses.dataclass(frozen=True)
class ConfidenceWithAllBlocks(Confidence):
    """The same rule, but the decoder keeps the blocks above its deepest exit."""

    def deepest(self, num_layers: int) -> int:
        return num_layers


@pytest.mark.parametrize(
    ("rule", "with_all_blocks"),
    [
        (Fixed(1), FixedWithAllBlocks(1)),
        (Confidence((0.5, 0.0)), ConfidenceWithAllBlocks((0.5, 0.0))),
    ],
    ids=str,
)
@pytest.mark.parametrize("changes", [{}, {"classifiers": "per_exit", "norm": "pre"}], ids=str)
def test_unreachable_blocks_are_left_out(changes: dict, rule: Rule, with_all_blocks):
    model = tiny_model(**changes)
    params = jax.tree.map(lambda x: 2 * x, random_params(model, 1))
    config = dataclasses.replace(CONFIG, model=model.config)
    trained = TrainedModel(config, model, params)
    result = search(trained, rule, sources_of(12), config.decoding)
    expected = search(trained, with_all_blocks, sources_of(12), config.decoding)
    assert_same(result.hypotheses, expected.hypotheses)
    for counted, same in zip(result.cost.work, expected.cost.work, strict=True):
        assert counted.tolist() == same.tolist()
    assert result.cost.peak_bytes < expected.cost.peak_bytes


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Sequence[Queue], SearchSettings]]:
    """Records the queues and settings of each search. Devices have 256 MiB, and every hypothesis
    is a lone EOS."""
    calls: list[tuple[Sequence[Queue], SearchSettings]] = []

    def run(_: Any, rule: Rule, queues: Sequence[Queue], settings: SearchSettings) -> Ran:
        calls.append((queues, settings))
        shape = (len(queues), queues[0].size)
        ones = np.ones(shape, np.int32)
        return Ran(
            Hypotheses(*[np.full((*shape, 1), EOS)] * 2, ones, ones, ones), DecodeCost.nothing(3)
        )

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "memory_of", lambda _: 1 << 28)
    return calls


def test_no_group_exceeds_a_window(trained: TrainedModel, searched: list):
    done: list[int] = []
    found = search(
        trained,
        Fixed(2),
        [[5, EOS]] * 9,
        CONFIG.decoding,
        platform=Platform(window=4),
        on_progress=done.append,
    )
    groups = [sum(int(queue.count) for queue in queues) for queues, _ in searched]
    assert groups == done == [4, 4, 1]
    assert len(found.hypotheses) == 9


def test_sizes_follow_the_sentences(trained: TrainedModel, searched: list):
    devices = len(trained.devices)
    for sentences, places in ((1, 1), (2 * devices, 16), (17 * devices, 32)):
        search(trained, Fixed(2), [[5, EOS]] * sentences, CONFIG.decoding)
        assert searched[-1][0][0].size == places
    settings = decoding(max_length_extra=1_000)
    for limits, length in (([9, 2], 16), ([2, 20], 32), ([30, 600], 1_008), (None, 1_008)):
        search(trained, Fixed(2), [[5, EOS]] * 2, settings, limits=limits)
        assert searched[-1][1].length == length


@pytest.mark.parametrize(
    ("changes", "limits", "message"),
    [
        ({"max_length_extra": 1 << 31}, None, "decoding.max_length_extra is 2147483648: no sent"),
        ({"max_length_ratio": 1e9}, None, "decoding.max_length_ratio is 1000000000.0: no sentence"),
        ({"beam_size": 1 << 31}, [2, 2], "decoding.beam_size is 2147483648: no sentence fits"),
        ({}, [2, 1 << 31], "limits has 2147483648 at 1: memory allows for "),
        ({}, [2, 1 << 24], "limits has 16777216 at 1: memory allows for "),
    ],
)
def test_oversized_settings_and_limits_are_refused_before_anything_runs(
    trained: TrainedModel, searched: list, changes: Any, limits: Any, message: str
):
    with pytest.raises(UserError) as caught:
        search(trained, Fixed(2), [[5, EOS]] * 2, decoding(**changes), limits=limits)
    assert str(caught.value).startswith(message)
    assert not searched


def test_the_error_names_a_source_that_does_not_fit(trained: TrainedModel, searched: list):
    sources = [[5, EOS], [*[5] * 200_000, EOS]]
    for limits in (None, [2, 2]):
        with pytest.raises(UserError, match=r"source 1 has 200001 tokens, and \d+ fit into"):
            search(trained, Fixed(2), sources, CONFIG.decoding, limits=limits)
    assert not searched
