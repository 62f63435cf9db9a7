# SPDX-License-Identifier: Apache-2.0
"""Each kind of source opens; bad text files give a one-line error that says how to fix them."""

import dataclasses
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dat_jax.data.sources import open_source, same_source
from dat_jax.data.sources.text import read_lines
from dat_jax.errors import UserError
from tests.tiny import tiny_config

CONFIG = tiny_config(data={"source": "generated:40", "vocabulary_size": 100}).data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.de").write_bytes(f"{split} eins\n{split} zwei\n".encode())
        (tmp_path / f"{split}.en").write_bytes(f"{split} one\n{split} two\n".encode())
    return tmp_path


def read(folder: Path, split: str = "train") -> list[tuple[str, str]]:
    source = open_source(dataclasses.replace(CONFIG, source=f"text:{folder}"))
    return list(source.pairs(split))


def complaint(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_generated() -> None:
    assert len(list(open_source(CONFIG).pairs("train"))) == 40
    default = open_source(dataclasses.replace(CONFIG, source="generated:"))
    assert next(default.pairs("train")) == next(open_source(CONFIG).pairs("train"))


@pytest.mark.parametrize("source", ["generated:0", "generated:many", "generated:-3"])
def test_generated_needs_a_number(source: str) -> None:
    with pytest.raises(UserError, match="give a number of pairs"):
        open_source(dataclasses.replace(CONFIG, source=source))


def test_generated_is_german_to_english() -> None:
    with pytest.raises(UserError, match=r"set data\.source_language to de"):
        open_source(dataclasses.replace(CONFIG, target_language="fr"))


def test_text_by_language_and_by_side(folder: Path) -> None:
    expected = [("valid eins", "valid one"), ("valid zwei", "valid two")]
    assert read(folder, "valid") == expected
    for split in ("train", "valid", "test"):
        (folder / f"{split}.de").rename(folder / f"{split}.src")
        (folder / f"{split}.en").rename(folder / f"{split}.tgt")
    assert read(folder, "valid") == expected


def test_only_line_feeds_end_lines(folder: Path) -> None:
    (folder / "train.de").write_bytes("a\u2028b\x0bc\r\n\nletzte".encode())
    (folder / "train.en").write_bytes(b"one\rmore\ntwo\nlast\n")
    assert read(folder) == [("a\u2028b\x0bc", "one\rmore"), ("", "two"), ("letzte", "last")]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n"))))
def test_lines_are_read_without_line_ends_and_byte_order_marks(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines).encode()
    expected = [line.removeprefix("\ufeff").removesuffix("\r") for line in lines]
    with tempfile.TemporaryFile() as file:
        file.write(text)
        file.seek(0)
        assert list(read_lines(file, "text")) == expected


@pytest.mark.parametrize("every", [2, 3, 7, 40])
def test_valid_every_moves_training_pairs_to_validation(every: int) -> None:
    source = open_source(dataclasses.replace(CONFIG, valid_every=every))
    whole = open_source(CONFIG)
    held_out, trained_on = [], []
    for number, pair in enumerate(whole.pairs("train"), start=1):
        (trained_on if number % every else held_out).append(pair)
    for _ in range(2):  # the same each time
        assert list(source.pairs("valid")) == held_out
        assert list(source.pairs("train")) == trained_on
    assert list(source.pairs("test")) == list(whole.pairs("test"))


def test_too_few_pairs_for_valid_every() -> None:
    source = open_source(dataclasses.replace(CONFIG, valid_every=41))
    for split in ("train", "valid"):
        with pytest.raises(
            UserError, match=r"valid_every is 41, but there are only 40 training pairs"
        ):
            list(source.pairs(split))


def test_files_that_are_not_needed_are_not_read(folder: Path) -> None:
    config = dataclasses.replace(CONFIG, source=f"text:{folder}", valid_every=2)
    for suffix in ("de", "en"):
        (folder / f"valid.{suffix}").write_bytes(b"")
    source = open_source(config)
    assert list(source.pairs("valid")) == [("train zwei", "train two")]
    names = {"train.de", "train.en", "test.de", "test.en"}
    assert {path.name for path in source.files} == names
    for suffix in ("de", "en"):
        (folder / f"valid.{suffix}").unlink()
    assert list(source.pairs("train")) == [("train eins", "train one")]


def test_missing_folder(tmp_path: Path) -> None:
    assert f"{tmp_path / 'nowhere'} is not a folder" in complaint(tmp_path / "nowhere")


def test_missing_file(folder: Path) -> None:
    (folder / "valid.en").unlink()
    message = complaint(folder)
    assert str(folder / "valid.en") in message and "valid.tgt" in message
    assert message.endswith("or data.valid_every")


def test_empty_file(folder: Path) -> None:
    (folder / "test.de").write_bytes(b"")
    assert f"{folder / 'test.de'} is empty" in complaint(folder)


@pytest.mark.parametrize(("shorter", "longer"), [("de", "en"), ("en", "de")])
def test_unequal_lines(folder: Path, shorter: str, longer: str) -> None:
    (folder / f"train.{longer}").write_bytes(b"1\n2\n3\n4\n5\n")
    assert (
        f"train.{shorter} ends after line 2 while {folder / f'train.{longer}'} has 5 lines"
        in complaint(folder)
    )


def test_both_sides_from_one_file_are_refused(folder: Path) -> None:
    same = dataclasses.replace(CONFIG, source=f"text:{folder}", target_language="de")
    with pytest.raises(UserError, match=r"are the same file: set data\.source_language"):
        open_source(same)
    (folder / "test.en").unlink()
    (folder / "test.en").symlink_to(folder / "test.de")
    assert f"{folder / 'test.de'} and {folder / 'test.en'} are the same" in complaint(folder)


def test_both_sides_may_have_the_same_language(folder: Path) -> None:
    """As in paraphrasing."""
    for split in ("train", "valid", "test"):
        (folder / f"{split}.de").rename(folder / f"{split}.src")
        (folder / f"{split}.en").rename(folder / f"{split}.tgt")
    config = dataclasses.replace(CONFIG, source=f"text:{folder}", target_language="de")
    assert next(iter(open_source(config).pairs("test"))) == ("test eins", "test one")


def test_byte_order_marks_are_removed(folder: Path) -> None:
    (folder / "train.de").write_bytes("\ufeffeins\n\ufeffz\ufeffwei\n".encode())
    assert read(folder) == [("eins", "train one"), ("z\ufeffwei", "train two")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16"])
def test_utf16_is_refused(folder: Path, encoding: str) -> None:
    (folder / "train.de").write_bytes("eins\nzwei\n".encode(encoding))
    assert "train.de" in complaint(folder) and "convert it" in complaint(folder)


def test_not_utf8(folder: Path) -> None:
    (folder / "train.en").write_bytes(b"one\ntw\xff\n")
    assert f"{folder / 'train.en'} is not UTF-8 at line 2" in complaint(folder)


def test_sources_are_the_same_if_they_name_one_folder_or_one_set(tmp_path: Path):
    (tmp_path / "link").symlink_to("text")
    assert same_source(f"text:{tmp_path}/link", f"text:{tmp_path}/a/../text/")
    assert not same_source(f"text:{tmp_path}/text", f"text:{tmp_path}/texts")
    assert same_source("tfds:a/b", "tfds:a/b")
    assert not same_source("tfds:a/b", "tfds:a/./b")
    assert not same_source("tfds:text", "text:text")
