# SPDX-License-Identifier: Apache-2.0
"""The tensorflow-datasets source, on a local data set: no download, no TensorFlow."""

import dataclasses
import sys
from pathlib import Path

import pytest
import requests

from dat_jax.data.sources import open_source
from dat_jax.data.sources.tfds import TfdsTranslation
from dat_jax.data.splits import SPLITS
from dat_jax.errors import UserError
from tests.tiny import tiny_config

tfds = pytest.importorskip("tensorflow_datasets")

PAIRS = {"train": 2_500, "validation": 3, "test": 2}


class TinyTranslation(tfds.core.GeneratorBasedBuilder):
    """German and English lines that differ in every record."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        languages = tfds.features.Translation(languages=["de", "en"])
        return tfds.core.DatasetInfo(builder=self, features=languages, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in PAIRS}

    def _generate_examples(self, split):
        for index in range(PAIRS[split]):
            yield index, {"de": f"{split} ü &amp; {index}", "en": f"one\nline {index}"}


class TinyText(TinyTranslation):
    """German and English texts not declared as a translation data set."""

    def _info(self):
        texts = tfds.features.FeaturesDict({"de": tfds.features.Text(), "en": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=texts)


class FarTranslation(TinyTranslation):
    """A data set that cannot be downloaded."""

    def _split_generators(self, dl_manager):
        raise requests.exceptions.ConnectionError("no such host,\nas it seems")


@pytest.fixture(scope="module", autouse=True)
def data_dir(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("tensorflow_datasets")
        patch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(folder))
        patch.setenv("TFDS_DATA_DIR", str(folder))
        yield folder


def test_reads_all_pairs_of_all_splits(data_dir: Path) -> None:
    source = TfdsTranslation("tiny_translation", "de", "en", SPLITS)
    for split, name in (("train", "train"), ("valid", "validation"), ("test", "test")):
        expected = [(f"{name} ü & {index}", f"one line {index}") for index in range(PAIRS[name])]
        assert list(source.pairs(split)) == expected
    assert (data_dir / "tiny_translation").is_dir()
    assert "tensorflow" not in sys.modules


def test_the_reverse_direction() -> None:
    source = TfdsTranslation("tiny_translation", "en", "de", SPLITS)
    assert next(source.pairs("test")) == ("one line 0", "test ü & 0")


class UnvalidatedTranslation(TinyTranslation):
    """A data set without validation pairs."""

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "test")}


def test_validation_pairs_may_come_from_the_training_pairs() -> None:
    data = tiny_config(data={"source": "tfds:unvalidated_translation"}).data
    with pytest.raises(UserError, match=r"has no split validation.* or set data\.valid_every"):
        open_source(data)
    source = open_source(dataclasses.replace(data, valid_every=1_001))
    train = [f"one line {index}" for index in range(2_500)]
    assert [pair[1] for pair in source.pairs("valid")] == train[1_000::1_001]
    del train[1_000::1_001]
    assert [pair[1] for pair in source.pairs("train")] == train
    assert len(list(source.pairs("test"))) == 2


def test_unknown_data_set() -> None:
    with pytest.raises(UserError, match="has no data set 'no_such_data'") as caught:
        TfdsTranslation("no_such_data", "de", "en", SPLITS)
    assert "\n" not in str(caught.value)


def test_a_data_set_without_translations_is_refused() -> None:
    with pytest.raises(UserError, match="tfds:tiny_text is not a translation data set: set it"):
        TfdsTranslation("tiny_text", "de", "en", SPLITS)


def test_a_failed_download_is_one_error() -> None:
    with pytest.raises(UserError, match="cannot be downloaded") as caught:
        TfdsTranslation("far_translation", "de", "en", SPLITS)
    assert "(no such host, as it seems): connect to the network" in str(caught.value)


def test_the_error_for_a_missing_language_lists_those_present() -> None:
    with pytest.raises(UserError, match=r"set .* to two of de, en"):
        TfdsTranslation("tiny_translation", "fr", "en", SPLITS)
