# SPDX-License-Identifier: Apache-2.0
"""Text in, text out: in order, whatever the batches; and what a run is said to have cost."""

import dataclasses
from pathlib import Path

import jax
import pytest

from dat_jax.data.dataset import Dataset
from dat_jax.data.prepare import prepare
from dat_jax.decoding.translate import Translator
from dat_jax.exits.policies import Fixed
from dat_jax.model.transformer import Transformer, init_params
from tests.tiny import tiny_config

CONFIG = tiny_config(
    data={"source": "generated:200", "vocabulary_size": 150, "max_length": 20},
    decoding={"beam_size": 2, "max_length_ratio": 0.5, "max_length_extra": 3, "batch_size": 8},
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(CONFIG.data, tmp_path_factory.mktemp("data"))


def make_translator(dataset: Dataset, **decoding: int) -> Translator:
    size = dataset.target_vocabulary.size
    model = Transformer(CONFIG.model, size, size)
    params = init_params(model, jax.random.key(1))
    settings = dataclasses.replace(CONFIG.decoding, **decoding)
    return Translator(model, params, dataset, Fixed(2), settings)


def test_lines_come_back_in_their_order_whatever_the_batches(dataset: Dataset):
    lines = dataset.text("test")[0][:10]
    forward = make_translator(dataset).translate(lines).sentences
    backward = make_translator(dataset).translate(lines[::-1]).sentences
    one_by_one = make_translator(dataset, batch_size=3).translate(lines).sentences
    texts = [sentence.text for sentence in forward]
    assert len(set(texts)) > 1
    assert [sentence.text for sentence in reversed(backward)] == texts
    assert [sentence.text for sentence in one_by_one] == texts


def test_an_empty_line_stays_empty_and_costs_nothing(dataset: Dataset):
    result = make_translator(dataset).translate(["", "sieben", "  "])
    assert [bool(sentence.pieces) for sentence in result.sentences] == [False, True, False]
    assert [sentence.text for sentence in result.sentences][::2] == ["", ""]
    nothing = make_translator(dataset).translate(["", ""])
    assert nothing.layer_rows == 0


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


def test_the_layers_that_ran_are_counted(dataset: Dataset):
    translator = make_translator(dataset, beam_size=1)
    (sentence,) = translator.translate(["acht"]).sentences
    assert translator.translate(["acht"]).layer_rows == 2 * len(sentence.pieces)


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
