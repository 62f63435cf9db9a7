# SPDX-License-Identifier: Apache-2.0
"""Damaged prepared data is refused, and changes of the source text are noticed."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from dat_jax.data import preparation
from dat_jax.data.dataset import Dataset, open_dataset
from dat_jax.data.sources.generated import GeneratedCorpus
from dat_jax.errors import UserError
from tests.storage.test_checksums import touch
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of parallel text."""
    folder = tmp_path_factory.mktemp("original")
    corpus = GeneratedCorpus(200, seed=0)
    for split in ("train", "valid", "test"):
        for suffix, lines in zip(("de", "en"), zip(*corpus.pairs(split), strict=True), strict=True):
            path = folder / "text" / f"{split}.{suffix}"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of the text with prepared data, for the tests to damage."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    prepare(tmp_path)
    return tmp_path


def prepare(folder: Path, text: str = "") -> Dataset:
    data = tiny_config(data={"vocabulary_size": 150, "max_length": 100}).data
    config = dataclasses.replace(data, source=f"text:{text or folder / 'text'}")
    return preparation.prepare(config, folder / "data", folder / "vocabulary")


def flip_a_bit(path: Path) -> None:
    """Flips a bit in the middle of a file, and updates its time."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    touch(path)


def complaint(folder: Path, text: str = "") -> str:
    with pytest.raises(UserError) as caught:
        prepare(folder, text)
    assert "\n" not in str(caught.value)
    assert "delete" not in str(caught.value)
    return str(caught.value)


PARTS = ["train/tokens.bin", "train/offsets.npy", "test/header.json", "valid.src", "test.tgt"]


@pytest.mark.parametrize("part", PARTS)
def test_a_flipped_bit_is_noticed_before_training(folder: Path, part: str):
    flip_a_bit(folder / "data" / part)
    assert f"{folder / 'data' / part} is damaged: restore it" in complaint(folder)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_reported_as_missing(folder: Path, part: str):
    (folder / "data" / part).unlink()
    assert f"{folder / 'data' / part} is missing: restore it" in complaint(folder)


def test_only_the_parts_that_are_read_are_checked(folder: Path):
    data = open_dataset(folder / "data", folder / "vocabulary")
    shutil.rmtree(folder / "data" / "train")
    flip_a_bit(folder / "data" / "valid" / "tokens.bin")
    flip_a_bit(folder / "data" / "valid.tgt")
    assert len(data.text("test")[0]) == 20
    assert len(data.tokens("test")) == 20
    with pytest.raises(UserError, match=r"valid\.tgt is damaged"):
        data.text("valid")
    with pytest.raises(UserError, match=r"tokens\.bin is damaged"):
        data.tokens("valid")
    with pytest.raises(UserError, match=r"header\.json is missing"):
        data.tokens("train")


def test_damaged_checksums_are_noticed(folder: Path):
    (folder / "data" / "checksums.json").write_text("{}")
    assert "checksums.json is damaged" in complaint(folder)


@pytest.mark.parametrize("name", ["train.de", "valid.en", "test.en"])
def test_changed_text_is_noticed(folder: Path, name: str):
    path = folder / "text" / name
    path.write_text(path.read_text(encoding="utf-8").replace("und", "and", 1), encoding="utf-8")
    touch(path)
    message = complaint(folder)
    assert f"{path} has changed since {folder / 'data'} was prepared from it" in message
    assert "move it away to continue without it, or give another --workdir" in message


def test_deleted_or_touched_text_is_not_a_change(folder: Path):
    touch(folder / "text" / "train.de")
    prepare(folder)
    shutil.rmtree(folder / "text")
    prepare(folder)


def test_moved_text_is_accepted_and_checked_at_its_new_path(folder: Path):
    moved = shutil.move(folder / "text", folder / "moved")
    (folder / "text").mkdir()
    prepared = prepare(folder, f"{folder}/data/../moved/")
    assert prepared.config.source == f"text:{moved}"
    shutil.rmtree(folder / "text")
    path = folder / "moved" / "valid.en"
    path.write_text(path.read_text(encoding="utf-8") + "more\n", encoding="utf-8")
    assert f"{path} has changed since" in complaint(folder, moved)


def test_different_text_at_another_path_is_refused(folder: Path):
    other = Path(shutil.copytree(folder / "text", folder / "other"))
    (other / "test.de").write_text("anders\n" * 20)
    start = f"was prepared from data.source = 'text:{folder / 'text'}', not 'text:"
    for text, reason in {
        other: "the text there differs",
        "no/text": "the text is not there",
    }.items():
        message = complaint(folder, str(text))
        assert (
            f"{start}{text}', and {reason}: give the former path, even if the text is gone, or"
            in message
        )
    shutil.rmtree(folder / "text")
    prepare(folder)


def test_a_relative_path_is_stored_as_an_absolute_one(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert prepare(tmp_path, "text").config.source == f"text:{tmp_path / 'text'}"
    monkeypatch.chdir("/")
    prepare(tmp_path)
    assert f"'text:{tmp_path / 'text'}', not 'text:text', and" in complaint(tmp_path, "text")


def test_data_without_checksums_recognises_its_text_by_path_only(folder: Path):
    (folder / "data" / "checksums.json").unlink()
    copy = shutil.copytree(folder / "text", folder / "copy")
    assert "give the former path" in complaint(folder, str(copy))
    prepare(folder)


def test_unchanged_files_are_not_hashed_again(folder: Path, monkeypatch: pytest.MonkeyPatch):
    for path in [*(folder / "data").rglob("*.*"), *(folder / "text").iterdir()]:
        touch(path)
    prepare(folder)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("it was hashed again"))
    prepare(folder).text("test")
