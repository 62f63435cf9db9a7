# SPDX-License-Identifier: Apache-2.0
"""Atomic writing of text files, and folders with one writer at a time.

The writer holds a lock of the operating system, which is released when the process ends, however it
ends. The next writer takes over what a killed one left.
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
    """Makes this process the only writer of `folder`.

    Creates the folder and its parents if they are missing, and removes them again if they are
    still empty at the end.

    Raises:
        UserError: another process, or this one, is already writing there.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            yield
    finally:
        with contextlib.suppress(OSError):  # not empty, or already removed
            for path in made:
                path.rmdir()


class Unfinished:
    """Text files that are written elsewhere and renamed together when finished; a context."""

    def __init__(self, *paths: Path, sizes: Sequence[int] = ()) -> None:
        """Names the files to write, without opening any.

        Args:
            paths: their final paths.
            sizes: bytes of each file to continue after, as `keep` returned them to an earlier
                process; empty to start from nothing.
        """
        self._paths, self._kept = paths, bool(sizes)
        self._sizes = sizes or [0] * len(paths)

    def __enter__(self) -> list[TextIOWrapper]:
        """Opens a temporary file for each path and truncates it to its size.

        Raises:
            UserError: a file is shorter than that.
        """
        with contextlib.ExitStack() as stack:
            self._files = []
            for path, size in zip(self._paths, self._sizes, strict=True):
                file = _own(path.with_name(path.name + UNFINISHED), fcntl.LOCK_EX)
                self._files.append(stack.enter_context(file))
                stack.callback(self._remove, file)
                if os.fstat(file.fileno()).st_size < size:
                    raise UserError(
                        f"{file.name} is shorter than when it was kept: remove its folder to start "
                        "again"
                    )
                file.truncate(size)
            self._stack = stack.pop_all()
        return self._files

    def keep(self) -> list[int]:
        """Writes everything to disk, to be continued by a later process; returns the sizes."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        self._kept = True
        return [os.fstat(file.fileno()).st_size for file in self._files]

    def __exit__(self, *_: object) -> None:
        """Removes unfinished files, unless `keep` was called."""
        self._stack.close()

    def finish(self) -> None:
        """Renames all files to their final paths."""
        for file in self._files:
            file.flush()
        for file, path in zip(self._files, self._paths, strict=True):
            os.replace(file.name, path)

    def _remove(self, file: TextIOWrapper) -> None:
        if not self._kept:
            _remove(file)


def write_text(path: Path, text: str) -> None:
    """Writes a file atomically: if anything fails, the old file stays."""
    unfinished = Unfinished(path)
    with unfinished as (file,):
        file.write(text)
        unfinished.finish()


@contextlib.contextmanager
def _lock(folder: Path) -> Generator[None, None, None]:
    """Holds the lock file of `folder`, which names this process."""
    path = folder / LOCK
    try:
        file = _own(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = ""
        with contextlib.suppress(FileNotFoundError):  # the other process has just finished
            holder = path.read_text(errors="replace").strip()
        raise UserError(
            f"{folder} is being written by {holder or 'another process'}: wait until it is done "
            "or give another folder"
        ) from None
    with file, contextlib.ExitStack() as stack:
        stack.callback(_remove, file)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _own(path: Path, operation: int) -> TextIOWrapper:
    """Opens a file and locks it for as long as it is open.

    The previous owner may have removed or renamed the file, so it is opened again if it is no
    longer at its path.

    Raises:
        BlockingIOError: another process owns it and `operation` does not wait.
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
    """Locks an open file; on a file system without locks, does nothing."""
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _is_at(path: Path, file: TextIOWrapper) -> bool:
    """Returns whether this open file is the one at `path`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _remove(file: TextIOWrapper) -> None:
    """Removes a file that this process owns, unless it was renamed."""
    if _is_at(Path(file.name), file):
        os.unlink(file.name)
