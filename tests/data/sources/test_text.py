# SPDX-License-Identifier: Apache-2.0
"""Text in parts, compressed text, and text without a test split."""

import dataclasses
import gzip
from pathlib import Path

import pytest

from dat_jax.data.sources import open_source
from dat_jax.data.sources.source import Source
from dat_jax.errors import UserError
from tests.tiny import tiny_config

CONFIG = tiny_config().data
GERMAN, ENGLISH = (
    [f"{word} {number}\n" for number in range(50)] for word in ("eins ü", "one\u2028")
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A text of three plain splits."""
    write(tmp_path, "train", GERMAN, ENGLISH)
    write(tmp_path, "valid", GERMAN[:3], ENGLISH[:3])
    write(tmp_path, "test", GERMAN[3:9], ENGLISH[3:9])
    return tmp_path


def write(folder: Path, name: str, german: list[str], english: list[str], ending: str = "") -> None:
    for suffix, lines in (("de", german), ("en", english)):
        text = "".join(lines).encode()
        path = folder / f"{name}.{suffix}{ending}"
        path.write_bytes(gzip.compress(text) if ending == ".gz" else text)


def remove(folder: Path, split: str) -> None:
    for path in folder.glob(f"{split}.*"):
        path.unlink()


def opened(folder: Path, **changes: object) -> Source:
    return open_source(dataclasses.replace(CONFIG, source=f"text:{folder}", **changes))


def complaint(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(opened(folder).pairs("train"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_parts_and_compressed_files_equal_one_plain_file(folder: Path):
    whole = list(opened(folder).pairs("train"))
    assert len(whole) == 50
    remove(folder, "train")
    write(folder, "train.a", GERMAN[:20], ENGLISH[:20])
    write(folder, "train.b.x", GERMAN[20:21], ENGLISH[20:21], ".gz")
    write(folder, "train.c", GERMAN[21:], ENGLISH[21:], ".gz")
    (folder / "train.c.en.gz").rename(folder / "train.c.tgt.gz")
    parts = opened(folder)
    assert list(parts.pairs("train")) == whole
    assert [path.name for path in parts.files[:6]] == [
        *("train.a.de", "train.a.en", "train.b.x.de.gz"),
        *("train.b.x.en.gz", "train.c.de.gz", "train.c.tgt.gz"),
    ]
    remove(folder, "train")
    write(folder, "train", GERMAN, ENGLISH, ".gz")
    assert list(opened(folder).pairs("train")) == whole
    held_out = opened(folder, valid_every=7)
    assert list(held_out.pairs("valid")) == whole[6::7]


def test_a_file_of_several_compressed_ones_is_read_to_its_end(folder: Path):
    expected = list(opened(folder).pairs("valid"))
    for suffix in ("de", "en"):
        path = folder / f"valid.{suffix}"
        lines = path.read_bytes().splitlines(keepends=True)
        (folder / f"{path.name}.gz").write_bytes(b"".join(map(gzip.compress, lines)))
        path.unlink()
    assert list(opened(folder).pairs("valid")) == expected


def test_a_plain_file_is_preferred_to_a_compressed_one(folder: Path):
    expected = list(opened(folder).pairs("train"))
    write(folder, "train", GERMAN[:1], ENGLISH[:1], ".gz")
    assert list(opened(folder).pairs("train")) == expected


def test_other_splits_have_no_parts(folder: Path):
    write(folder, "valid.old", GERMAN, ENGLISH)
    write(folder, "test.2017", GERMAN, ENGLISH)
    source = opened(folder)
    assert [len(list(source.pairs(split))) for split in source.splits] == [50, 3, 6]


def test_a_whole_and_parts_are_refused_together(folder: Path):
    write(folder, "train.more", GERMAN, ENGLISH)
    message = f"{folder} has the training text as train.de and in parts, as train.more.de: move"
    assert message in complaint(folder)


def test_a_part_without_its_other_side_is_named(folder: Path):
    remove(folder, "train")
    for part in "12":
        write(folder, f"train.{part}", GERMAN, ENGLISH)
    (folder / "train.2.en").unlink()
    message = f"{folder / 'train.2.en'} is missing: add it (or train.2.tgt), one sentence per"
    assert message in complaint(folder)


def test_the_lines_of_each_part_are_counted(folder: Path):
    remove(folder, "train")
    write(folder, "train.1", GERMAN, ENGLISH)
    write(folder, "train.2", GERMAN, ENGLISH[:7], ".gz")
    message = f"train.2.en.gz ends after line 7 while {folder / 'train.2.de.gz'} has 50 lines"
    assert message in complaint(folder)


def test_damaged_compressed_files_are_named(folder: Path):
    remove(folder, "train")
    write(folder, "train", GERMAN, ENGLISH, ".gz")
    path = folder / "train.en.gz"
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 255
    for bad in (good[:-9], good[: len(good) // 2], bytes(flipped), b"one\ntwo\n"):
        path.write_bytes(bad)
        assert f"{path} is truncated or damaged, or was not compressed by gzip" in complaint(folder)
    for empty in (b"", gzip.compress(b"")):
        path.write_bytes(empty)
        assert f"{path} is empty: put one sentence on each line" in complaint(folder)


def test_the_test_split_may_be_missing(folder: Path):
    assert list(opened(folder).splits) == ["train", "valid", "test"]
    remove(folder, "test")
    assert list(opened(folder).splits) == ["train", "valid"]
    assert list(opened(folder, valid_every=5).splits) == ["train", "valid"]
    (folder / "test.de").write_text("eins\n")
    assert f"{folder / 'test.en'} is missing: add it" in complaint(folder)
