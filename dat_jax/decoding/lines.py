# SPDX-License-Identifier: Apache-2.0
"""Reads lines of a file, a pipe or standard input as they arrive."""

import contextlib
import fcntl
import hashlib
import io
import os
import select
import stat
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dat_jax.data.sources.text import read_lines
from dat_jax.errors import UserError
from dat_jax.storage.paths import as_path

_CHUNK = 1 << 20


class Extent(NamedTuple):
    """The number of lines of a text, and a checksum to recognise it by."""

    lines: int
    sha256: str

    @classmethod
    def of(cls, lines: Iterable[str]) -> "Extent":
        """Counts and hashes the lines of a text."""
        total, digest = 0, hashlib.sha256()
        for line in lines:
            total += 1
            digest.update(line.encode() + b"\n")
        return cls(total, digest.hexdigest())


class Lines:
    """The lines of a file, or of standard input if its name is `-`; use it as a context."""

    def __init__(self, name: str) -> None:
        """Opens the file.

        Raises:
            UserError: it cannot be opened.
        """
        self.name = "standard input" if name == "-" else name
        try:
            self._file = _Arrivals(_standard_input() if name == "-" else str(as_path(name)))
        except OSError as error:
            raise self._unreadable(error) from None
        self._file.name = self.name

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[str]:
        """Yields the remaining lines, without line feeds.

        Raises:
            UserError: there are none, or one is not UTF-8 or cannot be read.
        """
        lines = read_lines(self._file, str(self._file.name))
        try:
            first = next(lines, None)
            if first is None:
                raise UserError(f"{self.name} is empty: put one sentence on each line")
            yield first
            yield from lines
        except OSError as error:
            raise self._unreadable(error) from None

    def measure(self) -> Extent | None:
        """Returns the extent of the remaining lines; None if they can be read only once.

        Raises:
            UserError: a line cannot be read.
        """
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            return None
        start = self._file.tell()
        extent = Extent.of(self)
        self._file.rewind(start)
        return extent

    def arrives_within(self, seconds: float) -> bool:
        """True as soon as a line or the end can be read, false if none can within `seconds`."""
        return self._file.arrives_within(seconds)

    def _unreadable(self, error: OSError) -> UserError:
        return UserError(f"{self.name}: {error.strerror}: name a file with one sentence per line")


class _Arrivals(io.FileIO):
    """A file that knows which complete lines have arrived; `readline` waits for one."""

    def __init__(self, file: str | int) -> None:
        super().__init__(file, closefd=isinstance(file, str))
        self._lines: deque[bytes] = deque()
        self._rest = b""  # an incomplete line
        self._ended = False
        # A larger pipe buffer lets the writer continue while we translate.
        with contextlib.suppress(AttributeError, OSError):  # another system, or not a pipe
            fcntl.fcntl(self, fcntl.F_SETPIPE_SZ, _CHUNK)

    def rewind(self, start: int) -> None:
        """Goes back to `start`."""
        self.seek(start)
        self._ended = False

    def readline(self, size: int | None = -1, /) -> bytes:
        """Returns the next line with its line feed, or nothing at the end."""
        while not self._lines and not self._ended:
            self._receive()
        return self._lines.popleft() if self._lines else b""

    def arrives_within(self, seconds: float) -> bool:
        """True if `readline` returns within `seconds`."""
        deadline = time.monotonic() + seconds
        while not self._lines and not self._ended:
            if not select.select([self], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return False
            self._receive()
        return True

    def _receive(self) -> None:
        """Waits for bytes and splits them into lines."""
        received = self.read(_CHUNK)
        if received is None:  # the file is non-blocking
            select.select([self], [], [])
        elif received:
            *lines, self._rest = (self._rest + received).split(b"\n")
            self._lines.extend(line + b"\n" for line in lines)
        else:
            self._ended = True
            self._lines.extend([self._rest] if self._rest else [])
            self._rest = b""


def _standard_input() -> int:
    if sys.stdin is None:
        raise UserError("standard input is closed: name a file with one sentence per line")
    return sys.stdin.fileno()
