# SPDX-License-Identifier: Apache-2.0
"""Checksums of files, to detect damage and changes.

Hashing reads the whole file, so a file with the same size and modification time as when it was
hashed counts as unchanged.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

from dat_jax.storage.stamped import read_stamped, write_stamped


@dataclasses.dataclass(frozen=True)
class Checksum:
    """The hash of a file's contents, with its size in bytes and its time in nanoseconds."""

    sha256: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "Checksum":
        """Reads and hashes a file."""
        before = path.stat()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(digest, before.st_size, before.st_mtime_ns)

    def renewed(self, path: Path) -> "Checksum | None":
        """Returns the file's current checksum if its contents are unchanged, else None."""
        now = path.stat()
        if (now.st_size, now.st_mtime_ns) == (self.size, self.mtime_ns):
            return self
        if now.st_size != self.size:
            return None
        checksum = Checksum.of(path)
        return checksum if checksum.sha256 == self.sha256 else None


Checksums = Mapping[str, Checksum]


def write_checksums(path: Path, **groups: Checksums) -> None:
    """Writes named groups of checksums into one JSON file."""
    values = {
        group: {name: dataclasses.asdict(checksum) for name, checksum in checksums.items()}
        for group, checksums in groups.items()
    }
    write_stamped(path, values)


def read_checksums(path: Path) -> dict[str, Checksums]:
    """Reads the groups that `write_checksums` wrote.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is damaged.
        UserError: it is of a later format.
    """
    groups = read_stamped(path).values
    try:
        return {
            group: {name: Checksum(**values) for name, values in checksums.items()}
            for group, checksums in groups.items()
        }
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{path} holds no checksums") from error
