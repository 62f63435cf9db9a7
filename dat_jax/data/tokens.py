# SPDX-License-Identifier: Apache-2.0
"""The token file of one split: the ids of all pairs in one memory-mapped array, with offsets.

It is a folder with `tokens.bin`, for each pair the ids of its source and then of its target, both
with EOS; `offsets.npy`, the start of each sentence and the end of the last; and `header.json`.
"""

import dataclasses
import itertools
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Sized
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int, Integer

from dat_jax.config.versions import read_settings
from dat_jax.data.integrity import damaged
from dat_jax.data.vocabulary import Vocabularies, is_blank
from dat_jax.errors import UserError
from dat_jax.storage.stamped import write_stamped

_CHUNK = 10_000


@dataclasses.dataclass(frozen=True)
class Header:
    """Counts and properties of a token file. Lengths include EOS."""

    pairs: int
    source_tokens: int
    target_tokens: int
    longest_source: int
    longest_target: int
    too_long: int
    lopsided: int
    blank: int
    dtype: str
    source_vocabulary: str
    target_vocabulary: str

    @property
    def vocabularies(self) -> tuple[str, str]:
        """The fingerprints of the vocabularies of the ids, source first."""
        return self.source_vocabulary, self.target_vocabulary


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits on the pairs to keep.

    Each side has at most `max_length` ids, EOS included. Without EOS, the longer side has at most
    `max_ratio` times the ids of the shorter; 0 is no limit.
    """

    max_length: int
    max_ratio: float = 0.0

    def fault(self, pair: tuple[Sized, Sized]) -> str:
        """Returns the field of `Header` that counts a pair as left out, or "" to keep it."""
        shorter, longer = sorted(map(len, pair))
        if longer > self.max_length:
            return "too_long"
        lopsided = self.max_ratio and longer - 1 > self.max_ratio * (shorter - 1)
        return "lopsided" if lopsided else ""


def read_header(folder: Path) -> Header:
    """Reads the header of a token file.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return Header(**read_settings(folder / "header.json").values)
    except (OSError, ValueError, TypeError):
        raise damaged(folder) from None


class TokenFile:
    """An opened token file; `tokens` stays on disk, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        """Opens `folder` and checks the sizes of its parts.

        Raises:
            UserError: a part is missing or does not fit the others.
        """
        self.folder = folder
        try:
            self.header = read_header(folder)
            self.offsets: Int[np.ndarray, " boundaries"] = np.load(
                folder / "offsets.npy", mmap_mode="r"
            )
            self.tokens: Integer[np.ndarray, " ids"] = np.memmap(
                folder / "tokens.bin", self.header.dtype, mode="r"
            )
        except (OSError, ValueError, TypeError, EOFError):
            raise damaged(self.folder) from None
        header = self.header
        if len(self.offsets) != 2 * header.pairs + 1 or len(self.tokens) != self.offsets[-1]:
            raise damaged(self.folder)

    def __len__(self) -> int:
        return self.header.pairs

    @cached_property
    def source_lengths(self) -> Int[np.ndarray, " B"]:
        """The number of source ids of each pair."""
        return (self.offsets[1::2] - self.offsets[:-1:2]).astype(np.int32)

    @cached_property
    def target_lengths(self) -> Int[np.ndarray, " B"]:
        """The number of target ids of each pair."""
        return (self.offsets[2::2] - self.offsets[1::2]).astype(np.int32)

    def __getitem__(
        self, index: int
    ) -> tuple[Integer[np.ndarray, " S"], Integer[np.ndarray, " T"]]:
        """Returns the source and target ids of one pair."""
        start, middle, end = self.offsets[2 * index : 2 * index + 3]
        return self.tokens[start:middle], self.tokens[middle:end]


def write_tokens(
    folder: Path,
    pairs: Iterable[tuple[str, str]],
    vocabularies: Vocabularies,
    limits: Limits,
) -> TokenFile:
    """Encodes `pairs` into the token file `folder`, and replaces it once everything is written.

    Leaves out and counts pairs with a blank side and those beyond the limits. Holds one chunk of
    text in memory, and four bytes per sentence.

    Raises:
        UserError: no pair is kept.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    dtype = np.uint16 if max(v.size for v in vocabularies) <= 65_535 else np.uint32
    with (partial / "tokens.bin").open("wb") as file:
        lengths, left_out = _write_ids(file, pairs, vocabularies, limits, dtype)
    if len(lengths) == 0:
        raise UserError(
            f"no pair of {folder.name} is kept ({left_out['blank']} blank, {left_out['too_long']} "
            f"over-long, {left_out['lopsided']} lopsided): fix the text, or raise data.max_length "
            "or data.max_length_ratio"
        )
    with (partial / "offsets.npy").open("wb") as file:
        _write_offsets(file, lengths)
    sources, targets = lengths[0::2], lengths[1::2]
    header = Header(
        pairs=len(sources),
        source_tokens=int(sources.sum()),
        target_tokens=int(targets.sum()),
        longest_source=int(sources.max()),
        longest_target=int(targets.max()),
        too_long=left_out["too_long"],
        lopsided=left_out["lopsided"],
        blank=left_out["blank"],
        dtype=np.dtype(dtype).name,
        source_vocabulary=vocabularies.source.fingerprint,
        target_vocabulary=vocabularies.target.fingerprint,
    )
    write_stamped(partial / "header.json", dataclasses.asdict(header))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return TokenFile(folder)


def _write_ids(
    file: BinaryIO,
    pairs: Iterable[tuple[str, str]],
    vocabularies: Vocabularies,
    limits: Limits,
    dtype: type[np.unsignedinteger],
) -> tuple[Int[np.ndarray, " sentences"], Counter[str]]:
    """Returns the length of each written sentence, and the number of pairs left out by fault."""
    lengths = [np.zeros(0, np.int32)]
    faults = Counter[str]()
    for chunk in _chunks(pairs):
        sources, targets = (
            vocabulary.encode([pair[side] for pair in chunk])
            for side, vocabulary in enumerate(vocabularies)
        )
        kept = list[Sequence[int]]()
        for pair in zip(sources, targets, strict=True):
            fault = "blank" if any(map(is_blank, pair)) else limits.fault(pair)
            faults[fault] += 1
            if not fault:
                kept += pair
        lengths.append(np.fromiter(map(len, kept), np.int32, len(kept)))
        # `tofile` would hide the system's error message.
        file.write(np.fromiter(itertools.chain.from_iterable(kept), dtype).tobytes())
    return np.concatenate(lengths), faults


def _write_offsets(file: BinaryIO, lengths: Int[np.ndarray, " sentences"]) -> None:
    """Writes the start of each sentence and the end of the last, like `np.save` but in chunks."""
    shape = (len(lengths) + 1,)
    header = {"descr": "<i8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    end = np.zeros(1, np.int64)
    file.write(end.tobytes())
    for start in range(0, len(lengths), _CHUNK):
        ends = end + np.cumsum(lengths[start : start + _CHUNK], dtype=np.int64)
        file.write(ends.tobytes())
        end = ends[-1:]


def _chunks(pairs: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    iterator = iter(pairs)
    while chunk := list(itertools.islice(iterator, _CHUNK)):
        yield chunk
