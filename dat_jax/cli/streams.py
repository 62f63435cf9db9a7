# SPDX-License-Identifier: Apache-2.0
"""Standard output and error that work when closed, and keep working when their reader leaves."""

import contextlib
import io
import os
import sys
from collections.abc import Generator
from typing import Any


class _Raw(io.FileIO):
    """The file under a stream; after its reader has left, output goes to the null device."""

    has_reader = True

    def write(self, data: Any, /) -> Any:
        try:
            return super().write(data)
        except BrokenPipeError:
            self.has_reader = False
            discard(self.fileno())
            return super().write(data)


@contextlib.contextmanager
def lasting() -> Generator[None, None, None]:
    """Makes both streams UTF-8, like the input, and independent of their readers.

    Output to a closed stream goes to the null device. File names that are not UTF-8 can be printed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except (
            OSError
        ):  # otherwise the next opened file gets this number, and libraries print to it
            os.open(os.devnull, os.O_RDWR)
    with (
        _lasting(sys.stdout) as output,
        _lasting(sys.stderr) as errors,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        yield


def deliver(text: str) -> None:
    """Prints output that is kept nowhere else, and fails if nobody reads it.

    Raises:
        BrokenPipeError: the reader has left.
    """
    print(text, flush=True)
    if not has_reader():
        raise BrokenPipeError


def has_reader() -> bool:
    """Returns False if standard output is closed or its reader is known to have left."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return not isinstance(raw, _Raw) or raw.has_reader


def discard(descriptor: int) -> None:
    """Redirects a descriptor to the null device, so that Python's final flush cannot fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextlib.contextmanager
def _lasting(stream: Any) -> Generator[Any, None, None]:
    """Wraps the file under a stream; the stream must not be used meanwhile."""
    if stream is None:
        raw = _Raw(os.devnull, "w")
        raw.has_reader = False
    elif isinstance(stream, io.TextIOWrapper) and _has_descriptor(stream):
        stream.flush()
        raw = _Raw(stream.fileno(), "w", closefd=False)
    else:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        yield stream
        return
    with io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=getattr(stream, "line_buffering", False),
        write_through=getattr(stream, "write_through", False),
    ) as lasting:
        yield lasting


def _has_descriptor(stream: io.TextIOWrapper) -> bool:
    try:
        return stream.fileno() >= 0
    except io.UnsupportedOperation:
        return False
