# SPDX-License-Identifier: Apache-2.0
"""Proof that prepared data is what was prepared, and from text that has not changed since.

`checksums.json` in the data folder holds the checksums of its files, and of the user's files that
they were made from. Version 0.1.0 kept none: of its data nothing is known before it is checked.
"""

from collections.abc import Sequence
from pathlib import Path

from dat_jax.data.splits import SPLITS
from dat_jax.errors import UserError
from dat_jax.storage.checksums import Checksum, Checksums, read_checksums, write_checksums

_NAME = "checksums.json"


def token_names(split: str) -> tuple[str, ...]:
    """Returns the names in the data folder of the parts of a split's token file."""
    return f"{split}/header.json", f"{split}/offsets.npy", f"{split}/tokens.bin"


def text_names(split: str) -> tuple[str, str]:
    """Returns the names in the data folder of the text of `valid` or `test`, source first."""
    return f"{split}.src", f"{split}.tgt"


def source_checksums(files: Sequence[Path]) -> Checksums:
    """Returns the checksums of the files that data is about to be made from, by where they lie."""
    return {str(path.resolve()): Checksum.of(path) for path in files}


def is_source(folder: Path, files: Sequence[Path]) -> bool:
    """True if data was made from files with the contents of these, wherever they lay."""
    _, known = _known(folder)
    now = source_checksums(files)
    return [x.sha256 for x in known.values()] == [x.sha256 for x in now.values()]


def replace_source(folder: Path, files: Sequence[Path]) -> None:
    """Looks for the text that data was made from in these files, from now on."""
    prepared, _ = _known(folder)
    write_checksums(folder / _NAME, prepared=prepared, source=source_checksums(files))


def keep_checksums(folder: Path, source: Checksums) -> None:
    """Writes the checksums of data that has just been prepared, beside those of its source."""
    prepared = {name: Checksum.of(folder / name) for name in _all_names()}
    write_checksums(folder / _NAME, prepared=prepared, source=source)


def check(folder: Path, *names: str) -> None:
    """Makes sure that some files are as they were prepared.

    Raises:
        UserError: one is missing or damaged.
    """
    prepared, _ = _known(folder)
    _renewed(folder, prepared, names)


def check_all(folder: Path) -> None:
    """Makes sure that all files are as they were prepared, and the text as it was then.

    A text that is gone has not changed. What had to be read is not read again until it changes.

    Raises:
        UserError: a file is missing or damaged, or the text is another.
    """
    prepared, source = known = _known(folder)
    text: dict[str, Checksum] = {}
    for name, checksum in source.items():
        path = Path(name)
        now = checksum.renewed(path) if path.exists() else checksum
        if now is None:
            raise UserError(
                f"{name} has changed since {folder} was prepared from it: put the old one back, "
                "or move it away to go on without it, or give another --workdir"
            )
        text[name] = now
    data = _renewed(folder, prepared, _all_names())
    if (data, text) != known:
        write_checksums(folder / _NAME, prepared=data, source=text)


def damaged(path: Path, problem: str = "damaged") -> UserError:
    """The error of a part of prepared data that is not what was written."""
    return UserError(
        f"{path} is {problem}: restore it, or prepare the data again in another --workdir"
    )


def _all_names() -> list[str]:
    tokens = [name for split in SPLITS for name in token_names(split)]
    return tokens + [name for split in ("valid", "test") for name in text_names(split)]


def _known(folder: Path) -> tuple[Checksums, Checksums]:
    """The checksums of the prepared files and of their source."""
    path = folder / _NAME
    try:
        groups = read_checksums(path)
        return groups["prepared"], groups["source"]
    except FileNotFoundError:
        return {}, {}
    except (ValueError, KeyError):
        raise damaged(path) from None


def _renewed(folder: Path, known: Checksums, names: Sequence[str]) -> Checksums:
    """The checksums of files, none of which is missing or damaged."""
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
