# SPDX-License-Identifier: Apache-2.0
"""Failures of orbax's threads: in the system's words, and told once, by raising them."""

import functools
import os
import re
import sys
import threading
import traceback
from logging import ERROR, LogRecord, getLogger
from pathlib import Path, PurePath
from types import TracebackType

import jax
from absl import logging

from dat_jax.errors import UserError


def explained(failure: Exception, directory: PurePath, kept: list[int]) -> Exception:
    """Makes a `UserError` of what the system refused to write; any other failure is a defect, or
    another process is lost.

    Args:
        failure: what was raised for a checkpoint.
        directory: where the checkpoint was to be.
        kept: the steps of those that are there, oldest first.

    Returns:
        One line with the system's words, such as "No space left on device", or what the runtime
        said of another process, or `failure` itself.
    """
    if isinstance(failure.__cause__, jax.errors.JaxRuntimeError):
        return failure.__cause__  # orbax says that it waited too long, however short that was
    words = _words_of_system(failure)
    if words is None:
        return failure
    rest = f"goes on from step {kept[-1]}" if kept else "starts again"
    return UserError(
        f"{directory}: a checkpoint cannot be written, {words}: fix that and run again, which "
        f"{rest}"
    )


@functools.cache
def quieten() -> None:
    """Has absl, asyncio and Python pass over orbax's tracebacks: it raises one of its failures."""
    logging.get_absl_logger().addFilter(_is_no_error_of_orbax)
    getLogger("asyncio").addFilter(_is_no_lost_failure_of_orbax)
    hook = sys.unraisablehook

    def pass_on(unraisable: "sys.UnraisableHookArgs") -> None:
        # Said of what ends, well or badly, after the first that failed has closed the loop.
        late = str(unraisable.exc_value) == "Event loop is closed"
        coroutine = getattr(unraisable.object, "cr_code", None)
        of_orbax = coroutine is not None and _is_of_orbax(coroutine.co_filename)
        if not (late or of_orbax or _leads_to_orbax(unraisable.exc_traceback)):
            hook(unraisable)

    sys.unraisablehook = pass_on


def wait_for_threads() -> None:
    """Waits until no thread writes any more; the first that fails leaves the others under way."""
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("orbax."):
            threading.Thread.join(thread)  # theirs would raise again what failed


def _words_of_system(failure: Exception) -> str | None:
    if isinstance(failure, OSError):
        return failure.strerror
    code = re.search(r"os_error_code='(\d+)'", str(failure))  # tensorstore's way to tell
    return os.strerror(int(code[1])) if code else None


def _is_no_error_of_orbax(record: LogRecord) -> bool:
    return record.levelno < ERROR or not _is_of_orbax(record.pathname)


def _is_no_lost_failure_of_orbax(record: LogRecord) -> bool:
    """Tensorstore is no Python: its failures, which orbax did not wait for, came from nowhere."""
    if not record.exc_info:
        return True
    origin = record.exc_info[2]
    return origin is not None and not _leads_to_orbax(origin)


def _leads_to_orbax(origin: TracebackType | None) -> bool:
    return any(_is_of_orbax(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(origin))


def _is_of_orbax(file: str) -> bool:
    return "orbax" in Path(file).parts
