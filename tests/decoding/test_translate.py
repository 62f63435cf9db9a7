# SPDX-License-Identifier: Apache-2.0
"""Text in, text out: in order, whatever the batches; and what a run is said to have cost."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import pytest

from dat_jax.data.dataset import Dataset
from dat_jax.data.prepare import prepare
from dat_jax.decoding.translate import Translation, Translator
from dat_jax.errors import UserError
from dat_jax.exits.policies import Confidence, Fixed, Policy, Uniform
from dat_jax.model.transformer import Transformer, init_params
from tests.tiny import tiny_config

CONFIG = tiny_config(
    data={"source": "generated:200", "vocabulary_size": 150, "max_length": 20},
    decoding={"beam_size": 2, "max_length_ratio": 0.5, "max_length_extra": 3, "batch_size": 8},
)
TWO_BLOCKS = Fixed(2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(CONFIG.data, tmp_path_factory.mktemp("data"))


@pytest.fixture
def few_lines_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The continuous engine decodes all that it is asked to, not only what it makes faster."""
    monkeypatch.setattr("dat_jax.decoding.translate.pays", lambda *_: True)


def make_translator(
    dataset: Dataset, policy: Policy = TWO_BLOCKS, **decoding: int | str
) -> Translator:
    size = dataset.target_vocabulary.size
    model = Transformer(CONFIG.model, size, size)
    params = init_params(model, jax.random.key(1))
    settings = dataclasses.replace(CONFIG.decoding, **decoding)
    return Translator(model, params, dataset, policy, settings)


def lines_of(dataset: Dataset, count: int) -> list[str]:
    """Sentences of several lengths, one of them empty."""
    lines = [*dataset.text("test")[0], "acht", "sieben Uhr", *dataset.text("valid")[0]]
    return [*lines[:2], "", *lines[2:]][:count]


def assert_same(some: Sequence[Translation], others: Sequence[Translation]) -> None:
    """Equal but for the order of sums in their scores."""
    assert [one.text for one in some] == [other.text for other in others]
    for one, other in zip(some, others, strict=True):
        assert (one.pieces, one.exits) == (other.pieces, other.exits)
        assert one.source_length == other.source_length
        assert one.score == pytest.approx(other.score, rel=1e-4)


def test_lines_come_back_in_their_order_whatever_the_batches(dataset: Dataset):
    lines = dataset.text("test")[0][:10]
    forward = make_translator(dataset).translate(lines).sentences
    backward = make_translator(dataset).translate(lines[::-1]).sentences
    one_by_one = make_translator(dataset, batch_size=3).translate(lines).sentences
    texts = [sentence.text for sentence in forward]
    assert len(set(texts)) > 1
    assert [sentence.text for sentence in reversed(backward)] == texts
    assert [sentence.text for sentence in one_by_one] == texts


@pytest.mark.parametrize(
    ("policy", "beam_size"), [(Uniform(3, 0), 1), (Confidence((0.05, 0.05)), 2)], ids=str
)
def test_both_engines_translate_alike(
    dataset: Dataset, few_lines_pay: None, policy: Policy, beam_size: int
):
    lines = lines_of(dataset, 30)
    found = {
        engine: make_translator(dataset, policy, beam_size=beam_size, engine=engine).translate(
            lines
        )
        for engine in ("continuous", "lockstep")
    }
    for engine, translations in found.items():
        assert translations.engines == {engine: len(lines) - 1}
    continuous, lockstep = found["continuous"], found["lockstep"]
    assert_same(continuous.sentences, lockstep.sentences)
    exits = {exit for sentence in continuous.sentences for exit in sentence.exits}
    assert len(exits) > 1
    assert continuous.work.rows[0] > 0
    assert lockstep.work.computed[0] > lockstep.work.rows[0]


def test_a_few_lines_are_decoded_in_lockstep_by_default(dataset: Dataset):
    translations = make_translator(dataset).translate(["acht"] * 3)
    assert CONFIG.decoding.engine == "continuous"
    assert translations.engines == {"lockstep": 3}


def test_many_lines_are_decoded_continuously_unless_all_exit_at_one_depth(dataset: Dataset):
    lines = ["acht"] * 260
    for policy, engine in ((Uniform(3, 0), "continuous"), (Fixed(2), "lockstep")):
        found = make_translator(dataset, policy, beam_size=1).translate(lines)
        assert found.engines == {engine: len(lines)}


@pytest.mark.parametrize(("threshold", "engine"), [(0.0, "continuous"), (1.0, "lockstep")])
def test_exits_of_long_lines_and_of_earlier_windows_tell_which_engine_is_faster(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, threshold: float, engine: str
):
    translator = make_translator(dataset, Confidence((threshold, threshold)), beam_size=1)
    lines = ["acht"] * 260
    after_a_long_line = translator.translate(["sieben Uhr " * 8, *lines])
    assert after_a_long_line.engines == Counter(["lockstep", *[engine] * 260])

    monkeypatch.setattr("dat_jax.decoding.translate._WINDOW", len(lines))
    before_anything, after_a_window = translator.stream([*lines, *lines])
    assert before_anything.engines == {"continuous": 260}
    assert after_a_window.engines == {engine: 260}


@pytest.mark.parametrize("engine", ["continuous", "lockstep"])
def test_windows_change_nothing_but_how_much_is_read_ahead(
    dataset: Dataset, few_lines_pay: None, monkeypatch: pytest.MonkeyPatch, engine: str
):
    """The exits that `uniform` draws follow from the lines' numbers in the whole text."""
    lines = lines_of(dataset, 13)
    translator = make_translator(dataset, Uniform(3, 0), beam_size=1, engine=engine)
    whole = translator.translate(lines)
    assert len({sentence.exits for sentence in whole.sentences}) > 6

    monkeypatch.setattr("dat_jax.decoding.translate._WINDOW", 4)
    read = []

    def reading() -> Iterator[str]:
        for line in lines:
            read.append(line)
            yield line

    parts = []
    for part in translator.stream(reading()):
        parts.append(part)
        assert len(read) == sum(len(part.sentences) for part in parts)
    assert [len(part.sentences) for part in parts] == [4, 4, 4, 1]
    assert_same([sentence for part in parts for sentence in part.sentences], whole.sentences)
    again = translator.translate(lines)
    assert_same(again.sentences, whole.sentences)
    assert sum(part.work.rows for part in parts).tolist() == whole.work.rows.tolist()
    assert again.work.rows.tolist() == whole.work.rows.tolist()
    assert again.engines == whole.engines == {engine: len(lines) - 1}


def test_a_line_that_cannot_be_read_does_not_take_what_came_before(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dat_jax.decoding.translate._WINDOW", 2)

    def breaking() -> Iterator[str]:
        yield from ("acht", "neun")
        raise UserError("no more")

    parts = make_translator(dataset).stream(breaking())
    assert len(next(parts).sentences) == 2
    with pytest.raises(UserError, match="no more"):
        next(parts)


def test_an_empty_line_stays_empty_and_costs_nothing(dataset: Dataset):
    result = make_translator(dataset).translate(["", "sieben", "  "])
    assert [bool(sentence.pieces) for sentence in result.sentences] == [False, True, False]
    assert [sentence.text for sentence in result.sentences][::2] == ["", ""]
    for lines in (["", ""], []):
        nothing = make_translator(dataset).translate(lines)
        assert len(nothing.sentences) == len(lines)
        assert nothing.engines == {}
        assert all(not counts.any() for counts in nothing.work)


def test_every_piece_has_its_exit_and_the_last_is_the_end(dataset: Dataset):
    for sentence in make_translator(dataset).translate(["sieben Uhr", "acht"]).sentences:
        assert sentence.exits == (2,) * len(sentence.pieces)
        assert sentence.pieces[-1] == "</s>"
        assert len(sentence.pieces) <= 0.5 * sentence.source_length + 3


def test_long_lines_are_cut_and_counted(dataset: Dataset):
    result = make_translator(dataset).translate(["acht " * 50, "acht"])
    assert result.cut == 1
    assert result.sentences[0].source_length == CONFIG.data.max_length
    assert result.sentences[1].source_length < CONFIG.data.max_length


@pytest.mark.parametrize("engine", ["continuous", "lockstep"])
def test_the_layers_that_ran_are_counted(dataset: Dataset, few_lines_pay: None, engine: str):
    translator = make_translator(dataset, beam_size=1, engine=engine, cohort_size=1)
    translations = translator.translate(["acht"])
    pieces = len(translations.sentences[0].pieces)
    assert translations.engines == {engine: 1}
    for counts in translations.work:
        assert counts.tolist() == [pieces, pieces, 0, pieces]


@pytest.mark.parametrize("sizes", [(4, 0), (4, 3), (0, 5)], ids=str)
def test_sizes_that_are_asked_for_change_nothing(
    dataset: Dataset, few_lines_pay: None, sizes: tuple[int, int]
):
    lines, policy = lines_of(dataset, 12), Uniform(3, 0)
    cohort_size, pool_size = sizes
    translator = make_translator(dataset, policy, cohort_size=cohort_size, pool_size=pool_size)
    expected = make_translator(dataset, policy, engine="lockstep").translate(lines)
    assert_same(translator.translate(lines).sentences, expected.sentences)


def test_a_vocabulary_of_its_own_decodes_the_target(tmp_path: Path):
    config = dataclasses.replace(CONFIG.data, vocabulary="separate", vocabulary_size=120)
    separate = prepare(config, tmp_path)
    assert separate.source_vocabulary.fingerprint != separate.target_vocabulary.fingerprint
    model = Transformer(CONFIG.model, 120, 120)
    params = init_params(model, jax.random.key(1))
    translator = Translator(model, params, separate, Fixed(3), CONFIG.decoding)
    (sentence,) = translator.translate(["acht"]).sentences
    pieces = "".join(sentence.pieces[:-1]).replace("▁", " ").replace("<unk>", " ⁇ ")
    assert sentence.text.split() == pieces.split()
