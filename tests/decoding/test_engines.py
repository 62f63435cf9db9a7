# SPDX-License-Identifier: Apache-2.0
"""Token ids in, hypotheses out: groups, the choice of an engine, limits; sizes change nothing."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest

from dat_jax.config import DecodingConfig
from dat_jax.data.vocabulary import EOS, PAD
from dat_jax.decoding import devices, engines, sizing
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.devices import Ran
from dat_jax.decoding.engines import Hypothesis, SearchResult, search
from dat_jax.decoding.queue import Queue
from dat_jax.decoding.sizing import Platform, SearchSettings
from dat_jax.decoding.work import Work
from dat_jax.exits.questions import Rule
from dat_jax.exits.rules import Confidence, Fixed, Uniform
from dat_jax.trained import TrainedModel
from tests.tiny import SOURCE_VOCABULARY, random_params, tiny_config, tiny_model

DECODING = {"beam_size": 2, "max_length_ratio": 0.5, "max_length_extra": 3, "batch_size": 8}
CONFIG = tiny_config(decoding=DECODING)


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    """A model of random weights whose choices vary."""
    model = tiny_model()
    return TrainedModel(CONFIG, model, jax.tree.map(lambda x: 2 * x, random_params(model, 1)))


def sources_of(count: int, longest: int = 20) -> list[list[int]]:
    """Sources of several lengths, some of which need more room than the others."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(0, longest, count)
    return [[*generator.integers(4, SOURCE_VOCABULARY, n).tolist(), EOS] for n in lengths]


def decoding(**changes: Any) -> DecodingConfig:
    return dataclasses.replace(CONFIG.decoding, **changes)


def assert_same(found: Sequence[Hypothesis], expected: Sequence[Hypothesis]) -> None:
    """Equal but for the order of sums in their scores."""
    for one, other in zip(found, expected, strict=True):
        assert (one.tokens, one.exits) == (other.tokens, other.exits)
        assert one.score == pytest.approx(other.score, rel=1e-4)


def engines_of(found: SearchResult) -> dict[str, int]:
    """Counts the sentences that each engine decoded."""
    counts = Counter[str]()
    for choice, sentences in found.choices.items():
        counts[choice.engine] += sentences
    return dict(counts)


@pytest.mark.parametrize(
    ("rule", "beam_size", "longest", "sizes"),
    [
        (Uniform(3, 0), 1, 20, {}),
        (Confidence((0.5, 0.8)), 2, 14, {"cohort_size": 4, "pool_size": 3}),
    ],
    ids=str,
)
def test_both_engines_translate_alike_whatever_the_sizes(
    trained: TrainedModel, rule: Rule, beam_size: int, longest: int, sizes: dict[str, int]
):
    sources, asked = sources_of(24, longest), {"beam_size": beam_size}
    expected = search(trained, rule, sources, decoding(engine="lockstep", **asked))
    assert engines_of(expected) == {"lockstep": 24}
    rooms = 1 + (longest > 16)
    assert len({settings.length for settings in expected.settings}) == rooms
    assert len({exit for h in expected.hypotheses for exit in h.exits}) > 1
    assert expected.work.computed[0] > expected.work.rows[0]
    result = search(trained, rule, sources, decoding(engine="continuous", **asked, **sizes))
    assert engines_of(result) == {"continuous": 24}
    assert_same(result.hypotheses, expected.hypotheses)
    assert result.work.rows.tolist() == expected.work.rows.tolist()
    if sizes:
        assert [(s.slots, s.cohort) for s in result.settings] == [(3, 4)]


def test_hypotheses_come_in_the_order_of_their_sources(trained: TrainedModel):
    sources = sources_of(24)
    forward = search(trained, Fixed(2), sources, CONFIG.decoding)
    backward = search(trained, Fixed(2), sources[::-1], CONFIG.decoding).hypotheses
    assert len(forward.settings) == 2  # rooms
    forward = forward.hypotheses
    assert len({hypothesis.tokens for hypothesis in forward}) > 1
    assert_same(backward[::-1], forward)


def test_chance_follows_the_numbers_of_sources_and_not_their_order(trained: TrainedModel):
    numbers, settings = [9, 4, 0, 2, 7, 5, 12, 3], decoding(beam_size=1, engine="lockstep")
    sources = [[5, 7, EOS]] * len(numbers)
    found = search(trained, Uniform(3, 0), sources, settings, numbers=numbers).hypotheses
    exits = dict(zip(numbers, [hypothesis.exits for hypothesis in found], strict=True))
    assert len(set(exits.values())) > 3
    ordered = search(trained, Uniform(3, 0), sources, settings, numbers=sorted(numbers)).hypotheses
    assert [h.exits for h in ordered] == [exits[number] for number in sorted(numbers)]


def test_limits_are_those_asked_for_or_follow_from_the_length(trained: TrainedModel):
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
    assert max(len(h.tokens) for h in found) > 13  # beyond what the lengths allow by themselves


@pytest.mark.parametrize("engine", ["lockstep", "continuous"])
def test_the_translation_of_nothing_is_nothing_whatever_its_limit(trained: TrainedModel, engine):
    sources = [[5, 6, EOS], [EOS]]
    found = search(trained, Fixed(2), sources, decoding(engine=engine), limits=[7, 7])
    spoken, silent = (hypothesis.tokens for hypothesis in found.hypotheses)
    assert len(spoken) > 1
    assert silent == (EOS,)


def test_nothing_to_search_is_nothing_found(trained: TrainedModel):
    found = search(trained, Fixed(2), [], CONFIG.decoding)
    assert found.hypotheses == ()
    assert found.choices == {}
    assert all(not counts.any() for counts in found.work)


class PretendedEngines:
    """Engines that find nothing but EOS, at once, and keep what they are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, int]] = []  # the engine, and how many sentences
        self.share_of_blocks = 1 / 3  # that tokens are said to need
        monkeypatch.setattr(engines, "run", self._run)

    def _run(
        self, _: Any, engine: str, rule: Rule, queues: Sequence[Queue], settings: SearchSettings
    ) -> Ran:
        self.calls.append((engine, sum(int(queue.count) for queue in queues)))
        shape = (len(queues), queues[0].size)
        ones = np.ones(shape, np.int32)
        tokens = np.full((*shape, settings.length), PAD)
        tokens[..., 0] = EOS
        deeper = round(100 * (3 * self.share_of_blocks - 1) / 2)
        rows = np.asarray([100, deeper, deeper, 100])
        hypotheses = Hypotheses(tokens, ones[..., None], ones, ones, ones)
        return Ran(hypotheses, Work(rows, rows, rows), 100, 0.0)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> PretendedEngines:
    return PretendedEngines(monkeypatch)


def short(count: int) -> list[list[int]]:
    return [[5, EOS]] * count


def test_few_sentences_are_decoded_in_lockstep_by_default(trained, pretended):
    assert CONFIG.decoding.engine == "auto"
    found = search(trained, Uniform(3, 0), short(3), CONFIG.decoding)
    assert pretended.calls == [("lockstep", 3)]
    [(choice, sentences)] = found.choices.items()
    assert sentences == 3
    assert choice.reason == "fewer than 256 hypotheses need the same room"


@pytest.mark.parametrize(
    ("rule", "engine"), [(Uniform(3, 0), "continuous"), (Fixed(2), "lockstep")], ids=str
)
def test_many_are_decoded_continuously_unless_all_exit_at_one_depth(
    trained, pretended, rule: Rule, engine: str
):
    found = search(trained, rule, short(130), CONFIG.decoding)
    assert engines_of(found) == {engine: 130}


@pytest.mark.parametrize(("share", "engine"), [(0.7, "continuous"), (0.8, "lockstep")])
def test_earlier_groups_and_texts_tell_how_deep_exits_are(
    trained, pretended, share: float, engine: str
):
    pretended.share_of_blocks = share
    found = search(trained, Uniform(3, 0), [[5] * 20 + [EOS], *short(130)], CONFIG.decoding)
    assert pretended.calls == [("lockstep", 1), (engine, 130)]
    again = search(trained, Uniform(3, 0), short(130), CONFIG.decoding, before=found.work)
    assert engines_of(again) == {engine: 130}


def test_no_group_is_larger_than_a_window(trained, pretended, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sizing.PLATFORMS, "cpu", Platform(window=4))
    done: list[int] = []
    found = search(trained, Fixed(2), short(9), CONFIG.decoding, on_progress=done.append)
    assert [count for _, count in pretended.calls] == done == [4, 4, 1]
    assert len(found.hypotheses) == 9


def test_a_program_is_compiled_once_for_all_rules_of_a_kind(trained: TrainedModel):
    sources, settings = sources_of(6, longest=12), decoding(beam_size=1, batch_size=6)
    devices._compile.cache_clear()
    first = search(trained, Fixed(1), sources, settings)
    again = search(trained, Fixed(3), sources[::-1], settings)
    assert devices._compile.cache_info().misses == 1
    assert first.seconds_compiling > 50 * again.seconds_compiling
    assert {exit for h in first.hypotheses for exit in h.exits} == {1}
    assert {exit for h in again.hypotheses for exit in h.exits} == {3}
    search(trained, Uniform(3, 0), sources, settings)
    assert devices._compile.cache_info().misses == 2
