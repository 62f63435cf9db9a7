# SPDX-License-Identifier: Apache-2.0
"""Files that are either whole or what they were before, and folders with one writer at a time.

A file or a folder that is being written belongs to one process by a lock of the system, which ends
with the process, however it ends. What a killed one left is taken over by the next.
"""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Generator, Sequence
from io import TextIOWrapper
from pathlib import Path

from dat_jax.errors import UserError

LOCK = ".lock"
UNFINISHED = ".unfinished"

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@contextlib.contextmanager
def sole_writer(folder: Path) -> Generator[None, None, None]:
    """Makes this process the only writer of `folder`, which is made if need be.

    Afterwards a folder that was made for it is gone if nothing was written.

    Raises:
        UserError: another process is writing there, or this one is already.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            yield
    finally:
        with contextlib.suppress(OSError):  # not empty, or gone
            for path in made:
                path.rmdir()


class Unfinished:
    """Text files that take their places together or not at all; use it as a context."""

    def __init__(self, *paths: Path, sizes: Sequence[int] = ()) -> None:
        """Names the files to write; nothing is opened yet.

        Args:
            paths: their places.
            sizes: how many bytes of each, by an earlier process that called `keep`, to go on from.
        """
        self._paths, self._kept = paths, bool(sizes)
        self._sizes = sizes or [0] * len(paths)

    def __enter__(self) -> list[TextIOWrapper]:
        """Opens a file for each path, not yet in its place, empty unless there is more to keep.

        Raises:
            UserError: there is less than was to be kept.
        """
        with contextlib.ExitStack() as stack:
            self._files = []
            for path, size in zip(self._paths, self._sizes, strict=True):
                file = _own(path.with_name(path.name + UNFINISHED), fcntl.LOCK_EX)
                self._files.append(stack.enter_context(file))
                stack.callback(self._remove, file)
                if os.fstat(file.fileno()).st_size < size:
                    raise UserError(
                        f"{file.name} is shorter than it was left: remove its folder to start again"
                    )
                file.truncate(size)
            self._stack = stack.pop_all()
        return self._files

    def keep(self) -> list[int]:
        """Makes sure that what has been written outlasts this process; returns the sizes."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        self._kept = True
        return [os.fstat(file.fileno()).st_size for file in self._files]

    def __exit__(self, *_: object) -> None:
        """Removes what has not taken its place."""
        self._stack.close()

    def finish(self) -> None:
        """Puts all files in their places, once all of them are whole."""
        for file in self._files:
            file.flush()
        for file, path in zip(self._files, self._paths, strict=True):
            os.replace(file.name, path)

    def _remove(self, file: TextIOWrapper) -> None:
        if not self._kept:
            _remove(file)


def write_text(path: Path, text: str) -> None:
    """Writes a whole file or, if anything goes wrong, leaves the one that was there."""
    unfinished = Unfinished(path)
    with unfinished as (file,):
        file.write(text)
        unfinished.finish()


@contextlib.contextmanager
def _lock(folder: Path) -> Generator[None, None, None]:
    """Holds a file in `folder` that says which process does."""
    path = folder / LOCK
    try:
        file = _own(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = ""
        with contextlib.suppress(FileNotFoundError):  # it is done meanwhile
            holder = path.read_text(errors="replace").strip()
        raise UserError(
            f"{folder} is being written by {holder or 'another process'}: wait until it is done "
            "or name another folder"
        ) from None
    with file, contextlib.ExitStack() as stack:
        stack.callback(_remove, file)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _own(path: Path, operation: int) -> TextIOWrapper:
    """Opens a file and locks it for as long as it is open.

    Whoever owns a file may remove or rename it, so one that is no longer at its path is opened
    anew.

    Raises:
        BlockingIOError: another process owns it, if `operation` says not to wait.
    """
    while True:
        file = path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")
        try:
            _lock_if_possible(file, operation)
            if _is_at(path, file):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock_if_possible(file: TextIOWrapper, operation: int) -> None:
    """Locks an open file, unless its file system has no locks: there, users must take care."""
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _is_at(path: Path, file: TextIOWrapper) -> bool:
    """True if this open file is the one that lies at `path`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _remove(file: TextIOWrapper) -> None:
    """Removes a file that this process owns from where it was opened, unless it was moved."""
    if _is_at(Path(file.name), file):
        os.unlink(file.name)
