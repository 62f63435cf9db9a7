# SPDX-License-Identifier: Apache-2.0
"""Parallel text files in UTF-8, one sentence per line; the same line of both files is a pair."""

import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dat_jax.errors import UserError

_BYTE_ORDER_MARK = "\ufeff"
_COMPRESSED = ".gz"


class TextFolder:
    """A folder with `{train,valid,test}.LANGUAGE` for both languages, or `.src` and `.tgt`.

    The training text may be in parts, `train.PART.LANGUAGE`. Any file may be compressed, with `.gz`
    at the end of its name. `test` may be missing.
    """

    def __init__(
        self, folder: Path, source_language: str, target_language: str, splits: Sequence[str]
    ) -> None:
        """Finds the files of each split.

        Raises:
            UserError: the folder or a file is missing, a file is empty, both files of a pair are
                the same, or the training text is there as a whole and in parts.
        """
        if not folder.is_dir():
            raise UserError(f"data.source: {folder} is not a folder: give the folder of the text")
        sides = (source_language, "src"), (target_language, "tgt")
        found = {split: _find(folder, split, sides) for split in splits}
        self._files = {split: files for split, files in found.items() if files}
        for source, target in itertools.chain.from_iterable(self._files.values()):
            if source.samefile(target):
                raise UserError(
                    f"{source} and {target} are the same file: set data.source_language and "
                    "data.target_language to the suffixes of two files"
                )

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of all splits."""
        pairs = itertools.chain.from_iterable(self._files.values())
        return tuple(itertools.chain.from_iterable(pairs))

    @property
    def splits(self) -> Sequence[str]:
        """The splits that were asked for, without `test` if it has no files."""
        return list(self._files)

    def pairs(self, split: str) -> Iterator[tuple[str, str]]:
        """Yields the (source, reference) pairs of `split` in the order of the lines, parts in the
        order of their names.

        Raises:
            UserError: two files of a pair differ in their number of lines, or one is not UTF-8 or
                is not whole.
        """
        for source, target in self._files[split]:
            yield from _pairs(source, target)


def _pairs(source_path: Path, target_path: Path) -> Iterator[tuple[str, str]]:
    with _opened(source_path) as source_file, _opened(target_path) as target_file:
        sources = read_lines(source_file, str(source_path))
        targets = read_lines(target_file, str(target_path))
        count = 0
        for source in sources:
            target = next(targets, None)
            if target is None:
                longer = count + 1 + sum(1 for _ in sources)
                raise _unequal(target_path, count, source_path, longer)
            yield source, target
            count += 1
        if next(targets, None) is not None:
            longer = count + 1 + sum(1 for _ in targets)
            raise _unequal(source_path, count, target_path, longer)


def _find(
    folder: Path, split: str, sides: tuple[tuple[str, str], tuple[str, str]]
) -> list[tuple[Path, Path]]:
    """Returns the two files of each part of a split; empty if there is no `test`."""
    by_side = [_parts(folder, split, suffixes) for suffixes in sides]
    parts = sorted(set().union(*by_side)) or [""]
    if split == "test" and not any(by_side):
        return []
    if len(parts) > 1 and "" in parts:
        one, other = (next(files[x] for files in by_side if x in files) for x in parts[:2])
        raise UserError(
            f"{folder} has the training text as {one.name} and in parts, as {other.name}: move "
            "away either"
        )
    found = [
        tuple(
            _present(files, folder, split, part, suffixes)
            for files, suffixes in zip(by_side, sides, strict=True)
        )
        for part in parts
    ]
    return [(source, target) for source, target in found]


def _parts(folder: Path, split: str, suffixes: tuple[str, str]) -> dict[str, Path]:
    """Returns the files of one side of a split by the names of their parts, "" for the whole.

    Prefers the suffix of the language to the general one, and plain files to compressed ones.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    part = r"(?:\.(.+))?" if split == "train" else "()"
    found: dict[str, Path] = {}
    for suffix, ending in itertools.product(suffixes, ("", _COMPRESSED)):
        form = re.compile(rf"{split}{part}\.{re.escape(suffix + ending)}")
        for match in filter(None, map(form.fullmatch, names)):
            found.setdefault(match[1] or "", folder / match[0])
    return found


def _present(
    files: dict[str, Path], folder: Path, split: str, part: str, suffixes: tuple[str, str]
) -> Path:
    """Returns the file of a part.

    Raises:
        UserError: it is missing or empty.
    """
    if path := files.get(part):
        with _opened(path) as file:
            if next(read_lines(file, str(path)), None) is None:
                raise UserError(f"{path} is empty: put one sentence on each line")
        return path
    path, general = (folder / ".".join(filter(None, (split, part, suffix))) for suffix in suffixes)
    otherwise = ", or data.valid_every" if split == "valid" else ""
    raise UserError(
        f"{path} is missing: add it (or {general.name}), one sentence per line, "
        "or set data.source_language and data.target_language to the suffixes of your files"
        f"{otherwise}"
    )


def _opened(path: Path) -> io.BufferedReader:
    """Opens a file, and decompresses it if its name says so."""
    if path.suffix == _COMPRESSED:
        return io.BufferedReader(gzip.open(path))
    return path.open("rb")


def read_lines(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Yields decoded lines, split only at line feeds; other Unicode line breaks stay in the line.

    Drops a byte-order mark at the start of any line, since files may have been concatenated. `name`
    is that of the file, for messages.

    Raises:
        UserError: a line is not UTF-8, or has NUL bytes, as UTF-16 does, or a compressed file is
            not whole.
    """
    for number, line in enumerate(_whole(lines, name), start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{name} is not UTF-8 at line {number}: convert it") from None
        if "\0" in text:
            raise UserError(
                f"{name} has a NUL byte at line {number}, like text in UTF-16: convert it to UTF-8"
            )
        yield text.removeprefix(_BYTE_ORDER_MARK).removesuffix("\n").removesuffix("\r")


def _whole(lines: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Yields the lines of a file.

    Raises:
        UserError: it is compressed and ends early, or is damaged.
    """
    try:
        yield from lines
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise UserError(
            f"{name} is truncated or damaged, or was not compressed by gzip: copy or compress "
            "it again"
        ) from None


def _unequal(shorter: Path, ends: int, longer: Path, count: int) -> UserError:
    return UserError(
        f"{shorter} ends after line {ends} while {longer} has {count} lines: "
        "give both files the same number of lines"
    )
