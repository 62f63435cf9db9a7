# SPDX-License-Identifier: Apache-2.0
"""Parallel text files in UTF-8, one sentence per line; the same line of both files is a pair."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from dat_jax.errors import UserError

_BYTE_ORDER_MARK = "\ufeff"


class TextFolder:
    """A folder with `{train,valid,test}.LANGUAGE` for both languages, or `.src` and `.tgt`."""

    def __init__(
        self, folder: Path, source_language: str, target_language: str, splits: Sequence[str]
    ) -> None:
        """Finds the two files of each split.

        Raises:
            UserError: the folder or a file is missing, a file is empty, or both files of a split
                are the same.
        """
        if not folder.is_dir():
            raise UserError(f"data.source: {folder} is not a folder: give the folder of the text")
        self._files = {
            split: (
                _find(folder, split, source_language, "src"),
                _find(folder, split, target_language, "tgt"),
            )
            for split in splits
        }
        for source, target in self._files.values():
            if source.samefile(target):
                raise UserError(
                    f"{source} and {target} are the same file: set data.source_language and "
                    "data.target_language to the suffixes of two files"
                )

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of all splits."""
        return tuple(itertools.chain.from_iterable(self._files.values()))

    def pairs(self, split: str) -> Iterator[tuple[str, str]]:
        """Yields the (source, reference) pairs of `split` in the order of the files.

        Raises:
            UserError: the two files differ in their number of lines, or one is not UTF-8.
        """
        source_path, target_path = self._files[split]
        with source_path.open("rb") as source_file, target_path.open("rb") as target_file:
            sources, targets = read_lines(source_file), read_lines(target_file)
            count = 0
            for source in sources:
                target = next(targets, None)
                if target is None:
                    longer = count + 1 + sum(1 for _ in source_file)
                    raise _unequal(target_path, count, source_path, longer)
                yield source, target
                count += 1
            if next(targets, None) is not None:
                longer = count + 1 + sum(1 for _ in target_file)
                raise _unequal(source_path, count, target_path, longer)


def _find(folder: Path, split: str, language: str, side: str) -> Path:
    paths = [folder / f"{split}.{language}", folder / f"{split}.{side}"]
    for path in paths:
        if path.is_file():
            if path.stat().st_size == 0:
                raise UserError(f"{path} is empty: put one sentence on each line")
            return path
    otherwise = ", or data.valid_every" if split == "valid" else ""
    raise UserError(
        f"{paths[0]} is missing: add it (or {paths[1].name}), one sentence per line, "
        "or set data.source_language and data.target_language to the suffixes of your files"
        f"{otherwise}"
    )


def read_lines(file: BinaryIO) -> Iterator[str]:
    """Yields decoded lines, split only at line feeds; other Unicode line breaks stay in the line.

    Drops a byte-order mark at the start of any line, since files may have been concatenated.

    Raises:
        UserError: a line is not UTF-8, or has NUL bytes, as UTF-16 does.
    """
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{file.name} is not UTF-8 at line {number}: convert it") from None
        if "\0" in text:
            raise UserError(
                f"{file.name} has a NUL byte at line {number}, like text in UTF-16: convert it to "
                "UTF-8"
            )
        yield text.removeprefix(_BYTE_ORDER_MARK).removesuffix("\n").removesuffix("\r")


def _unequal(shorter: Path, ends: int, longer: Path, count: int) -> UserError:
    return UserError(
        f"{shorter} ends after line {ends} while {longer} has {count} lines: "
        "give both files the same number of lines"
    )
