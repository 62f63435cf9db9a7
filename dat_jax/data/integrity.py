# SPDX-License-Identifier: Apache-2.0
"""Checks that prepared data is undamaged and that its source text has not changed.

`checksums.json` in the data folder holds the checksums of its files and of the user's text files.
Version 0.1.0 wrote none; its data gets checksums when it is first checked.
"""

from collections.abc import Sequence
from pathlib import Path

from dat_jax.data.splits import SPLITS
from dat_jax.errors import UserError
from dat_jax.storage.checksums import Checksum, Checksums, read_checksums, write_checksums

_NAME = "checksums.json"


def token_names(split: str) -> tuple[str, ...]:
    """Returns the names of the parts of a split's token file, relative to the data folder."""
    return f"{split}/header.json", f"{split}/offsets.npy", f"{split}/tokens.bin"


def text_names(split: str) -> tuple[str, str]:
    """Returns the names of the text files of `valid` or `test`, source first."""
    return f"{split}.src", f"{split}.tgt"


def source_checksums(files: Sequence[Path]) -> Checksums:
    """Returns the checksums of source text files, by their paths."""
    return {str(path.resolve()): Checksum.of(path) for path in files}


def is_source(folder: Path, files: Sequence[Path]) -> bool:
    """Returns whether data was prepared from files with the same contents, under any path."""
    _, known = _known(folder)
    now = source_checksums(files)
    return [x.sha256 for x in known.values()] == [x.sha256 for x in now.values()]


def replace_source(folder: Path, files: Sequence[Path]) -> None:
    """Records new paths of the source text of prepared data."""
    prepared, _ = _known(folder)
    write_checksums(folder / _NAME, prepared=prepared, source=source_checksums(files))


def keep_checksums(folder: Path, splits: Sequence[str], source: Checksums) -> None:
    """Writes the checksums of newly prepared splits, together with those of their source."""
    prepared = {name: Checksum.of(folder / name) for name in _all_names(splits)}
    write_checksums(folder / _NAME, prepared=prepared, source=source)


def prepared_splits(folder: Path) -> tuple[str, ...]:
    """Returns the splits of prepared data; `test` may not be among them.

    Raises:
        UserError: the checksums are damaged.
    """
    prepared, _ = _known(folder)
    return tuple(x for x in SPLITS if not prepared or token_names(x)[0] in prepared)


def check(folder: Path, *names: str) -> None:
    """Checks that some files are as they were prepared.

    Raises:
        UserError: one is missing or damaged.
    """
    prepared, _ = _known(folder)
    _renewed(folder, prepared, names)


def check_all(folder: Path) -> tuple[Checksums, Checksums]:
    """Checks that no prepared file and no source text has changed; writes nothing.

    A missing text counts as unchanged.

    Returns:
        The current checksums of both.

    Raises:
        UserError: a file is missing or damaged, or the text has changed.
    """
    prepared, source = _known(folder)
    text: dict[str, Checksum] = {}
    for name, checksum in source.items():
        path = Path(name)
        now = checksum.renewed(path) if path.exists() else checksum
        if now is None:
            raise UserError(
                f"{name} has changed since {folder} was prepared from it: restore it, move it away "
                "to continue without it, or give another --workdir"
            )
        text[name] = now
    return _renewed(folder, prepared, _all_names(prepared_splits(folder))), text


def check_and_renew(folder: Path) -> None:
    """Checks as `check_all` does, and stores new times of files that had to be hashed, so they are
    not hashed again until they change.

    Raises:
        UserError: as `check_all`.
    """
    prepared, source = now = check_all(folder)
    if now != _known(folder):
        write_checksums(folder / _NAME, prepared=prepared, source=source)


def damaged(path: Path, problem: str = "damaged") -> UserError:
    """Returns the error for a missing or damaged part of prepared data."""
    return UserError(
        f"{path} is {problem}: restore it, or prepare the data again in another --workdir"
    )


def _all_names(splits: Sequence[str]) -> list[str]:
    tokens = [name for split in splits for name in token_names(split)]
    return tokens + [name for x in splits if x != "train" for name in text_names(x)]


def _known(folder: Path) -> tuple[Checksums, Checksums]:
    """Returns the checksums of the prepared files and of their source."""
    path = folder / _NAME
    try:
        groups = read_checksums(path)
        return groups["prepared"], groups["source"]
    except FileNotFoundError:
        return {}, {}
    except (ValueError, KeyError):
        raise damaged(path) from None


def _renewed(folder: Path, known: Checksums, names: Sequence[str]) -> Checksums:
    """Checks files and returns their current checksums.

    Raises:
        UserError: one is missing or damaged.
    """
    now: dict[str, Checksum] = {}
    for name in names:
        path = folder / name
        if not path.exists():
            raise damaged(path, "missing")
        checksum = known[name].renewed(path) if name in known else Checksum.of(path)
        if checksum is None:
            raise damaged(path)
        now[name] = checksum
    return now
