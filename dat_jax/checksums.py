# SPDX-License-Identifier: Apache-2.0
"""Checksums of files, by which damage and change are noticed.

Hashing reads everything, so a file whose size and time are those at which it was hashed is taken
to be as it was.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

from dat_jax.formats import read_stamped, write_stamped


@dataclasses.dataclass(frozen=True)
class Checksum:
    """The contents of a file, and the size and time, in nanoseconds, that it had with them."""

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
        """Returns the checksum of a file that still has these contents, and None of any other."""
        now = path.stat()
        if (now.st_size, now.st_mtime_ns) == (self.size, self.mtime_ns):
            return self
        if now.st_size != self.size:
            return None
        checksum = Checksum.of(path)
        return checksum if checksum.sha256 == self.sha256 else None


Checksums = Mapping[str, Checksum]


def write_checksums(path: Path, **groups: Checksums) -> None:
    """Writes groups of checksums, each by a name, into one file of JSON."""
    values = {
        group: {name: dataclasses.asdict(checksum) for name, checksum in checksums.items()}
        for group, checksums in groups.items()
    }
    write_stamped(path, values)


def read_checksums(path: Path) -> dict[str, Checksums]:
    """Reads the groups that `write_checksums` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.
        UserError: it is of a later format.
    """
    groups, _ = read_stamped(path)
    try:
        return {
            group: {name: Checksum(**values) for name, values in checksums.items()}
            for group, checksums in groups.items()
        }
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{path} holds no checksums") from error
