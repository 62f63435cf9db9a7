# SPDX-License-Identifier: Apache-2.0
"""Translating lines: order, windows and limits of length.

Most tests use a fake engine that returns each source reversed; two use the real one.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given

from dat_jax.data.dataset import Dataset
from dat_jax.data.preparation import prepare
from dat_jax.data.vocabulary import EOS
from dat_jax.decoding import sizing
from dat_jax.decoding.cost import DecodeCost
from dat_jax.decoding.search import Hypothesis, SearchResult
from dat_jax.decoding.sizing import Platform
from dat_jax.decoding.trained import TrainedModel
from dat_jax.decoding.translator import Translator
from dat_jax.decoding.work import Work
from dat_jax.errors import UserError
from dat_jax.exits.parsing import Policy
from dat_jax.exits.questions import Rule
from dat_jax.exits.rules import Fixed, Uniform
from dat_jax.model.transformer import Transformer, init_params
from tests.tiny import tiny_config

CONFIG = tiny_config(
    data={"source": "generated:200", "vocabulary_size": 150, "max_length": 20},
    decoding={"beam_size": 2, "max_length_ratio": 0.5, "max_length_extra": 3, "batch_size": 8},
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("run")
    return prepare(CONFIG.data, folder / "data", folder / "vocabulary")


def make_translator(dataset: Dataset, **decoding: Any) -> Translator:
    """A translator with random weights."""
    vocabularies = dataset.vocabularies
    model = Transformer(CONFIG.model, vocabularies.source.size, vocabularies.target.size)
    params = init_params(model, jax.random.key(1))
    config = dataclasses.replace(CONFIG, data=dataset.config)
    settings = dataclasses.replace(CONFIG.decoding, **decoding)
    return Translator(
        TrainedModel(config, model, params, vocabularies), Policy.of(Fixed(2)), settings
    )


@pytest.fixture(scope="module")
def translator(dataset: Dataset) -> Translator:
    return make_translator(dataset)


@pytest.fixture
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of four lines, and an engine that reverses the source, exits by the line's number
    and reports one tick for each sentence."""

    def search(
        trained: TrainedModel,
        rule: Rule,
        sources: Sequence[Sequence[int]],
        decoding: object,
        *,
        numbers: Sequence[int],
        platform: Platform,
        n_best: int,
        on_progress: Any,
    ) -> SearchResult:
        on_progress(len(sources))
        hypotheses = tuple(
            Hypothesis((*source[-2::-1], EOS), (1 + number % 3,) * len(source), -1.0, -0.5)
            for source, number in zip(sources, numbers, strict=True)
        )
        ticks = np.full(4, len(sources))
        cost = DecodeCost(Work(ticks, ticks, ticks), 0, len(sources), 1_000, 5.0, 0.25)
        return SearchResult(hypotheses, cost, ())

    monkeypatch.setattr("dat_jax.decoding.translator.search", search)
    monkeypatch.setitem(sizing.PLATFORMS, "cpu", Platform(window=4))


LINES = ["acht", "sieben Uhr", "", "zwei", "am dritten Mai", "\u200b", "neun", "elf", "acht"]


def backwards(dataset: Dataset, line: str) -> str:
    vocabulary = dataset.vocabularies.source
    return vocabulary.decode(vocabulary.encode([line])[0][-2::-1])


def test_translations_keep_the_order_of_the_lines(dataset: Dataset, fake_engine: None):
    found = make_translator(dataset).translate(LINES)
    assert [sentence.text for sentence in found.sentences] == [
        backwards(dataset, line) for line in LINES
    ]
    assert len({sentence.text for sentence in found.sentences}) == 7
    for number, sentence in enumerate(found.sentences):
        assert set(sentence.exits) == ({1 + number % 3} if number not in (2, 5) else set())
        assert len(sentence.exits) == len(sentence.pieces)
        assert sentence.source_length == len(sentence.pieces) or not sentence.pieces
    assert found.cost.work.ticks.tolist() == [7] * 4
    assert (found.cost.in_work, found.cost.peak_bytes) == (3, 1_000)
    assert found.cost.seconds_compiling == 3 * 0.25


@hypothesis.settings(
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], max_examples=100
)
@given(lines=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=9))
def test_any_line_is_translated_in_its_place(
    dataset: Dataset, translator: Translator, fake_engine: None, lines: list[str]
):
    """Also line breaks, combining marks, control characters and unseen scripts."""
    together = translator.translate(lines).sentences
    assert [sentence.text for sentence in together] == [backwards(dataset, line) for line in lines]
    assert [sentence.pieces == () for sentence in together] == [
        len(dataset.vocabularies.source.encode([line])[0]) == 1 for line in lines
    ]


def test_a_window_is_translated_before_more_is_read(dataset: Dataset, fake_engine: None):
    read = []

    def reading() -> Iterator[str]:
        for line in LINES:
            read.append(line)
            yield line

    parts = []
    for part in make_translator(dataset).stream(reading()):
        parts.append(part)
        assert len(read) == sum(len(part.sentences) for part in parts)
    assert [len(part.sentences) for part in parts] == [4, 4, 1]
    whole = make_translator(dataset).translate(LINES)
    assert tuple(s for part in parts for s in part.sentences) == whole.sentences


def test_a_window_closes_early_when_no_line_arrives(dataset: Dataset, fake_engine: None):
    """There is a pause after lines 2, 3 and 7."""
    late = {2, 3, 7}
    count, waits = 0, list[float]()

    def counting() -> Iterator[str]:
        nonlocal count
        for line in LINES:
            count += 1
            yield line

    def arrives_within(seconds: float) -> bool:
        waits.append(seconds)
        return count not in late

    translator = make_translator(dataset)
    parts = list(translator.stream(counting(), arrives_within=arrives_within))
    assert [len(part.sentences) for part in parts] == [2, 1, 4, 2]
    assert all(0 <= seconds < 0.5 for seconds in waits)
    whole = translator.translate(LINES)
    assert tuple(s for part in parts for s in part.sentences) == whole.sentences


def test_a_steady_trickle_does_not_keep_a_window_open(
    dataset: Dataset, fake_engine: None, monkeypatch: pytest.MonkeyPatch
):
    """Each line arrives soon after the one before, but the last long after the first."""
    monkeypatch.setitem(sizing.PLATFORMS, "cpu", Platform(window=1_000))
    now, gap = 0.0, 0.02

    def arrives_within(seconds: float) -> bool:
        nonlocal now
        now += min(seconds, gap)
        return seconds >= gap

    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("dat_jax.decoding.windows.time", clock)
    parts = make_translator(dataset).stream(LINES * 9, arrives_within=arrives_within)
    lengths = [len(part.sentences) for part in parts]
    assert sum(lengths) == 9 * len(LINES)
    assert 2 < len(lengths) < sum(lengths) / 2
    assert now / len(lengths) < 0.5


def test_an_unreadable_line_does_not_lose_earlier_windows(dataset: Dataset, fake_engine: None):
    def breaking() -> Iterator[str]:
        yield from LINES[:4]
        raise UserError("no more")

    parts = make_translator(dataset).stream(breaking())
    assert len(next(parts).sentences) == 4
    with pytest.raises(UserError, match="no more"):
        next(parts)


def test_an_empty_line_stays_empty_and_costs_nothing(dataset: Dataset, fake_engine: None):
    result = make_translator(dataset).translate(["", "sieben", "  "])
    assert [bool(sentence.pieces) for sentence in result.sentences] == [False, True, False]
    assert [sentence.text for sentence in result.sentences][::2] == ["", ""]
    for lines in (["", "\ufeff\u200e"], []):
        nothing = make_translator(dataset).translate(lines)
        assert len(nothing.sentences) == len(lines)
        assert not nothing.cost.work.ticks.any()


def test_long_lines_are_cut_and_counted(dataset: Dataset, fake_engine: None):
    lines = ["acht " * 50, "acht"]
    result = make_translator(dataset, max_source_length=20).translate(lines)
    assert result.cut == 1
    assert result.sentences[0].source_length == 20
    assert result.sentences[0].pieces[-1] == "</s>"
    assert result.sentences[1].source_length < 20
    whole = make_translator(dataset).translate(lines)
    assert whole.cut == 0
    assert whole.sentences[0].text == backwards(dataset, lines[0])


def test_a_line_that_does_not_fit_is_left_blank(
    dataset: Dataset, fake_engine: None, monkeypatch: pytest.MonkeyPatch
):
    """Other lines, in its window or a later one, are still translated."""
    monkeypatch.setattr("dat_jax.decoding.capacity.memory_of", lambda _: 1 << 20)
    lines = [*LINES[:2], "acht " * 12_000, *LINES[2:], "acht " * 3_000]
    translator = make_translator(dataset)
    longest = translator._capacity.longest_source
    found = translator.translate(lines)
    assert [sentence.text for sentence in found.sentences] == [
        "" if len(line) > 10_000 else backwards(dataset, line) for line in lines
    ]
    assert [(line.line, line.longest) for line in found.too_long] == [(3, longest), (11, longest)]
    assert found.too_long[0].pieces == found.sentences[2].source_length > 4 * longest > 200
    assert found.sentences[2].pieces == found.sentences[2].exits == ()
    assert str(found.too_long[0]).startswith(f"line 3 has {found.too_long[0].pieces:,} pieces and")
    cut = make_translator(dataset, max_source_length=longest).translate(lines)
    assert (cut.cut, cut.too_long) == (2, ())
    assert all(
        sentence.text for line, sentence in zip(lines, cut.sentences, strict=True) if "acht" in line
    )


def test_the_smallest_process_limits_the_length_of_a_line(
    dataset: Dataset, fake_engine: None, monkeypatch: pytest.MonkeyPatch
):
    others = "dat_jax.decoding.translator.gather"
    monkeypatch.setattr(others, lambda own: [own, own | {"longest": 40}])
    found = make_translator(dataset).translate(["acht " * 50, "acht"])
    assert [(line.line, line.longest) for line in found.too_long] == [(1, 40)]


def test_a_window_is_for_the_devices_of_all_processes(
    dataset: Dataset, fake_engine: None, monkeypatch: pytest.MonkeyPatch
):
    others = "dat_jax.decoding.translator.gather"
    monkeypatch.setattr(others, lambda own: [own, own | {"devices": 2}])
    translator = make_translator(dataset)
    own = len(translator.trained.devices)
    parts = list(translator.stream(["acht"] * 30))
    assert len(parts[0].sentences) == 4 * (own + 2)


def test_settings_that_fit_no_sentence_are_refused_before_reading(dataset: Dataset):
    with pytest.raises(UserError, match="max_length_extra is 2147483648: no sentence fits into"):
        make_translator(dataset, max_length_extra=1 << 31)


def test_a_model_without_vocabularies_refuses_text(dataset: Dataset):
    translator = make_translator(dataset)
    trained = dataclasses.replace(translator.trained, vocabularies=None)
    with pytest.raises(UserError, match="give it token ids"):
        dataclasses.replace(translator, trained=trained).translate(["acht"])


def test_windows_that_close_early_change_nothing(dataset: Dataset):
    """Uses the real engine, and a rule that draws by sentence number."""
    rule = Uniform(CONFIG.model.decoder_layers, 0)
    translator = dataclasses.replace(make_translator(dataset), policy=Policy.of(rule))
    whole = translator.translate(LINES).sentences
    parts = list(translator.stream(LINES, arrives_within=lambda _: False))
    assert [len(part.sentences) for part in parts] == [1] * len(LINES)
    assert len({sentence.exits for sentence in whole}) > 3
    for part, other in zip(parts, whole, strict=True):
        (one,) = part.sentences
        assert dataclasses.replace(one, score=0.0) == dataclasses.replace(other, score=0.0)
        assert one.score == pytest.approx(other.score, rel=1e-5)


def test_a_separate_target_vocabulary_decodes_the_output(tmp_path: Path):
    """Uses the real engine; every piece has an exit, and the last piece is EOS."""
    config = dataclasses.replace(CONFIG.data, vocabulary="separate", vocabulary_size=120)
    separate = prepare(config, tmp_path / "data", tmp_path / "vocabulary")
    source, target = separate.vocabularies.fingerprints
    assert source != target
    (sentence,) = make_translator(separate).translate(["acht"]).sentences
    pieces = "".join(sentence.pieces[:-1]).replace("▁", " ").replace("<unk>", " ⁇ ")
    assert sentence.text.split() == pieces.split()
    assert sentence.exits == (2,) * len(sentence.pieces)
    assert sentence.pieces[-1] == "</s>"
    assert len(sentence.pieces) <= 0.5 * sentence.source_length + 3
