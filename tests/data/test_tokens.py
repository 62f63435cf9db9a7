# SPDX-License-Identifier: Apache-2.0
"""Token files return the pairs written, count those left out, and notice damage."""

import errno
import itertools
from pathlib import Path

import numpy as np
import pytest

from dat_jax.data.sources.generated import GeneratedCorpus
from dat_jax.data.tokens import Limits, TokenFile, write_tokens
from dat_jax.data.vocabulary import Vocabularies, Vocabulary, train_vocabulary
from dat_jax.errors import UserError
from tests.storage.test_files import size_limit

PAIRS = list(GeneratedCorpus(300, seed=0).pairs("train"))
GERMAN = Vocabulary(train_vocabulary([pair[0] for pair in PAIRS], 150, "bpe"), "nmt_nfkc")
ENGLISH = Vocabulary(train_vocabulary([pair[1] for pair in PAIRS], 120, "bpe"), "nfc")


def write(
    folder: Path, pairs: list[tuple[str, str]], max_length: int = 1_000, max_ratio: float = 0.0
) -> TokenFile:
    return write_tokens(folder, pairs, Vocabularies(GERMAN, ENGLISH), Limits(max_length, max_ratio))


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return write(tmp_path / "train", PAIRS)


def test_round_trip(file: TokenFile) -> None:
    assert len(file) == len(PAIRS)
    for index, (german, english) in enumerate(PAIRS):
        source, target = file[index]
        assert (GERMAN.decode(source), ENGLISH.decode(target)) == (german, english)
        assert len(source) == file.source_lengths[index]
        assert len(target) == file.target_lengths[index]


def test_header(file: TokenFile) -> None:
    header = file.header
    assert header.dtype == "uint16"
    assert header.source_tokens == file.source_lengths.sum()
    assert header.target_tokens == file.target_lengths.sum()
    assert header.longest_source == file.source_lengths.max()
    assert header.longest_target == file.target_lengths.max()
    assert (header.too_long, header.lopsided, header.blank) == (0, 0, 0)
    fingerprints = (header.source_vocabulary, header.target_vocabulary)
    assert fingerprints == (GERMAN.fingerprint, ENGLISH.fingerprint)


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_the_size_of_chunks_changes_no_byte(
    file: TokenFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("dat_jax.data.tokens._CHUNK", chunk)
    chunked = write(tmp_path / "chunked", PAIRS)
    assert chunked.header == file.header
    folder = chunked.folder
    ids = [
        ids
        for german, english in PAIRS
        for ids in (*GERMAN.encode([german]), *ENGLISH.encode([english]))
    ]
    assert (folder / "tokens.bin").read_bytes() == np.concatenate(ids).astype(np.uint16).tobytes()
    np.save(tmp_path / "offsets.npy", np.cumsum([0, *map(len, ids)]))
    assert (folder / "offsets.npy").read_bytes() == (tmp_path / "offsets.npy").read_bytes()


def test_blank_and_overlong_pairs_are_left_out_and_counted(tmp_path: Path) -> None:
    long = "drei " * 30
    pairs = [("drei", "three"), (" ", "three"), ("drei", ""), (long, "three"), ("drei", long)]
    pairs += [("\u200b", "three"), ("drei", "\ufeff"), ("drei", "\u200e\x01")]
    file = write(tmp_path / "train", pairs, max_length=20)
    assert (file.header.pairs, file.header.blank, file.header.too_long) == (1, 5, 2)
    assert GERMAN.decode(file[0][0]) == "drei"


def test_max_length_counts_eos(tmp_path: Path) -> None:
    ids = max(len(GERMAN.encode(["drei"])[0]), len(ENGLISH.encode(["three"])[0]))
    pairs = [("drei", "three")]
    assert len(write(tmp_path / "train", pairs, max_length=ids)) == 1
    with pytest.raises(UserError, match="no pair of train"):
        write(tmp_path / "train", pairs, max_length=ids - 1)


def test_lopsided_pairs_are_left_out_and_counted(tmp_path: Path) -> None:
    """The ratio counts pieces without EOS, with either side longer; the exact ratio is kept."""
    pieces = list(itertools.product(range(1, 9), repeat=2))
    pairs = [(" ".join(["und"] * source), " ".join(["and"] * target)) for source, target in pieces]
    expected = [pair for pair in pieces if max(pair) / min(pair) <= 1.5]
    file = write(tmp_path / "train", pairs, max_ratio=1.5)
    assert list(zip(file.source_lengths - 1, file.target_lengths - 1, strict=True)) == expected
    assert file.header.lopsided == len(pieces) - len(expected)
    assert (file.header.too_long, file.header.blank) == (0, 0)
    assert len(write(tmp_path / "whole", pairs)) == len(pieces)


def test_a_pair_left_out_counts_once(tmp_path: Path) -> None:
    pairs = [("und", "and"), ("und", "and " * 30), ("und " * 3, "and"), ("", "and " * 30)]
    header = write(tmp_path / "train", pairs, max_length=20, max_ratio=2.0).header
    assert (header.pairs, header.blank, header.too_long, header.lopsided) == (1, 1, 1, 1)
    message = r"no pair of train is kept \(1 blank, 1 over-long, 1 lopsided\): fix the text"
    with pytest.raises(UserError, match=message):
        write(tmp_path / "train", pairs[1:], max_length=20, max_ratio=2.0)


def test_a_failed_write_leaves_the_old_file(file: TokenFile) -> None:
    def failing():
        yield from PAIRS
        raise UserError("the text ends badly")

    with pytest.raises(UserError, match="the text ends badly"):
        write_tokens(file.folder, failing(), Vocabularies(GERMAN, ENGLISH), Limits(1_000))
    assert TokenFile(file.folder).header == file.header


@pytest.mark.parametrize(
    ("pairs", "most"),
    [(PAIRS, 20_000), ([("drei", "three")] * 3_000, 40_000)],
    ids=["ids", "offsets"],
)
def test_a_full_disk_raises_the_system_error(
    tmp_path: Path, pairs: list[tuple[str, str]], most: int
) -> None:
    """The disk fills while ids or offsets are written."""
    with size_limit(most), pytest.raises(OSError) as caught:
        write(tmp_path / "train", pairs)
    assert caught.value.errno == errno.EFBIG
    assert not (tmp_path / "train").exists()


def test_pickled_objects_are_not_loaded(file: TokenFile) -> None:
    np.save(file.folder / "offsets.npy", np.array([Path("code")], object), allow_pickle=True)
    with pytest.raises(UserError, match="is damaged"):
        TokenFile(file.folder)


@pytest.mark.parametrize("part", ["tokens.bin", "offsets.npy", "header.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "emptied"])
def test_opening_notices_missing_and_truncated_parts(
    file: TokenFile, part: str, damage: str
) -> None:
    path = file.folder / part
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[:-20] if damage == "cut" else b"")
    with pytest.raises(UserError, match="is damaged: restore it") as caught:
        TokenFile(file.folder)
    assert "\n" not in str(caught.value)
