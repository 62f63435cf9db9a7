# SPDX-License-Identifier: Apache-2.0
"""Runs on the data that another run prepared: what fits is used, and the other is never changed."""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from dat_jax.config import Config
from dat_jax.errors import UserError
from dat_jax.runs.compatibility import check_continues, check_whole
from dat_jax.runs.workdir import Run
from tests.runs.test_workdir import trained
from tests.scripts.calls import files
from tests.storage.test_checksums import touch
from tests.tiny import tiny_config


def config_of(prepared: Path | str = "", **data: Any) -> Config:
    usual = {"source": "generated:60", "vocabulary_size": 100, "max_length": 40}
    return tiny_config(data=usual | {"prepared": str(prepared)} | data)


@pytest.fixture
def corpus(tmp_path: Path) -> Run:
    """A workdir with nothing but prepared data."""
    run = Run(tmp_path / "corpus")
    run.prepare(config_of())
    return run


def complaint(run: Run, config: Config) -> str:
    with pytest.raises(UserError) as caught:
        run.prepare(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def kept(run: Run, config: Config) -> Run:
    """Prepares a run as `train.py` does."""
    run.prepare(config)
    run.keep(config)
    return run


@pytest.mark.parametrize("vocabulary", ["joint", "separate"])
def test_prepared_data_is_read_where_it_is(tmp_path: Path, vocabulary: str):
    corpus, data = Run(tmp_path / "corpus"), {"vocabulary": vocabulary}
    expected = corpus.prepare(config_of(**data))
    for path in corpus.data.rglob("*.*"):
        touch(path)  # a run of its own would store the new times
    before = files(corpus.path)
    (tmp_path / "link").symlink_to("corpus")
    run = kept(Run(tmp_path / "run"), config_of(tmp_path / "link", **data))
    assert run.config.data.prepared == str(corpus.path)
    dataset = run.dataset()
    assert dataset.report() == expected.report()
    assert dataset.vocabularies.fingerprints == expected.vocabularies.fingerprints
    assert run.text("valid") == corpus.text("valid")
    assert run.splits(run.config) == ("train", "valid", "test")
    assert not (run.path / "data").exists()
    kept(run, config_of(corpus.path, **data))  # again, and by another path
    assert files(corpus.path) == before


def test_data_that_does_not_fit_is_refused(corpus: Run, tmp_path: Path):
    run, way_out = Run(tmp_path / "run"), "set both alike, or leave data.prepared out"
    message = complaint(run, config_of(corpus.path, max_length=30))
    assert message.startswith(f"{corpus.data} was prepared with data.max_length = 40, not 30")
    assert message.endswith(way_out)
    other = config_of(corpus.path, source_vocabulary="own.model")
    assert "with data.source_vocabulary = '', not 'own.model'" in complaint(run, other)
    assert "with data.source = 'generated:60'" in complaint(
        run, config_of(corpus.path, source="generated:70")
    )
    assert not run.path.exists()
    tokens = corpus.data / "train" / "tokens.bin"
    tokens.write_bytes(tokens.read_bytes()[:-2])
    assert f"{tokens} is damaged: restore it" in complaint(run, config_of(corpus.path))


def test_missing_and_unfinished_data_is_refused(corpus: Run, tmp_path: Path):
    run = Run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (corpus.data / "config.json").unlink()  # it is written last
    for place in (tmp_path / "none", tmp_path / "empty", corpus.path):
        message = complaint(run, config_of(place))
        assert message.startswith(
            f"data.prepared is {place}, which holds no finished data: prepare"
        )
    with pytest.raises(UserError, match="is not a path on this machine"):
        run.prepare(config_of("gs://bucket/run"))


def test_a_run_has_data_of_its_own_or_that_of_another(corpus: Run, tmp_path: Path):
    own = f"and {corpus.data} has prepared data already: leave data.prepared out, or give another"
    assert own in complaint(corpus, config_of(corpus.path))
    second = kept(Run(tmp_path / "second"), config_of(corpus.path))
    message = complaint(Run(tmp_path / "third"), config_of(second.path))
    assert message.endswith(f"uses the data of {corpus.path} itself: give that workdir")


def test_a_resumed_run_keeps_its_data_and_its_vocabularies(corpus: Run, tmp_path: Path):
    first, _, _ = trained(tmp_path / "first", config_of(corpus.path))
    check_continues(first, config_of(f"{tmp_path}/a/../corpus"))
    for other, way_out in {
        "": "give another --workdir",
        "elsewhere": "give the former path, or, if that workdir has moved, write its new path into "
        "config.json, or another --workdir",
    }.items():
        message = f"a run with data.prepared = '{corpus.path}', not '{other}': {way_out}"
        with pytest.raises(UserError, match=re.escape(message)):
            check_continues(first, config_of(other))
    model = first.vocabulary / "joint.model"
    shutil.rmtree(corpus.path)
    corpus.prepare(config_of(seed=1))  # another corpus in its place
    before = model.read_bytes()
    with pytest.raises(UserError, match=r"was prepared with data\.seed = 1, not 0"):
        first.prepare(config_of(corpus.path))
    other = first.prepare(config_of(corpus.path, seed=1))
    with pytest.raises(UserError, match="are not those of"):
        other.tokens("train")
    assert model.read_bytes() == before
    moved = shutil.move(corpus.path, tmp_path / "moved")
    with pytest.raises(UserError, match=rf"but {corpus.data} is missing: restore it"):
        check_continues(first, config_of(corpus.path))
    assert first.load().steps == (0,)  # which needs no data
    shutil.rmtree(moved)
    again = Run(tmp_path / "moved")
    again.prepare(config_of())
    first.keep(config_of(moved))  # as the message advises
    assert check_whole(first)
    check_continues(first, config_of(moved))


def test_data_without_a_test_split_has_none(tmp_path: Path):
    for name in ("train", "valid"):
        for side in ("src", "tgt"):
            (tmp_path / f"{name}.{side}").write_text("eins zwei drei\n" * 20)
    config = config_of(source=f"text:{tmp_path}", vocabulary_size=20)
    run = Run(tmp_path / "run")
    assert run.splits(config) == ["train", "valid"]
    dataset = run.prepare(config)
    assert [line.split(":")[0] for line in dataset.report().splitlines()] == ["train", "valid"]
    assert run.splits(config) == ("train", "valid")
    message = "has no split test, only train and valid, because its text has none: choose another"
    for read in (dataset.tokens, dataset.text, run.text):
        with pytest.raises(UserError, match=message):
            read("test")
    run.prepare(dataclasses.replace(config))  # is checked and accepted again
