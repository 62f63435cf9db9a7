# SPDX-License-Identifier: Apache-2.0
"""Failures of orbax's threads: turned into one line, and reported only once."""

import asyncio
import gc
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from logging import ERROR, LogRecord, getLogger
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any

import jax
from absl import logging

from dat_jax.errors import UserError

_LONGEST_WAIT = 5.0  # seconds
_POLL = 0.01  # seconds


def explained(failure: Exception, directory: PurePath, kept: list[int]) -> Exception:
    """Turns an error of the system while writing a checkpoint into a `UserError`.

    Args:
        failure: the exception that orbax raised.
        directory: the folder of checkpoints.
        kept: the steps that have a checkpoint, oldest first.

    Returns:
        A `UserError` with the system's message, such as "No space left on device"; the runtime's
        error if another process was lost; otherwise `failure` itself, which is a defect.
    """
    if isinstance(failure.__cause__, jax.errors.JaxRuntimeError):
        return failure.__cause__  # orbax reports it as a timeout, even if it failed at once
    reason = _system_message(failure)
    if reason is None:
        return failure
    then = f"to resume from step {kept[-1]}" if kept else "to start again"
    return UserError(
        f"{directory}: a checkpoint cannot be written, {reason}: fix that and run again {then}"
    )


def hide_tracebacks() -> Callable[[], None]:
    """Hides the tracebacks that absl, asyncio and Python print for orbax, which raises one of its
    failures anyway. Returns a function that shows them again."""
    filters = [
        (logging.get_absl_logger(), _is_no_error_of_orbax),
        (getLogger("asyncio"), _is_no_lost_failure_of_orbax),
    ]
    hook = sys.unraisablehook

    def pass_on(unraisable: "sys.UnraisableHookArgs") -> None:
        # Raised in any write that ends after the first failure has closed the event loop.
        late = str(unraisable.exc_value) == "Event loop is closed"
        coroutine = getattr(unraisable.object, "cr_code", None)
        of_orbax = coroutine is not None and _is_of_orbax(coroutine.co_filename)
        if not (late or of_orbax or _leads_to_orbax(unraisable.exc_traceback)):
            hook(unraisable)

    def show() -> None:
        sys.unraisablehook = hook
        for logger, is_kept in filters:
            logger.removeFilter(is_kept)

    for logger, is_kept in filters:
        logger.addFilter(is_kept)
    sys.unraisablehook = pass_on
    return show


def wait_for_threads() -> None:
    """Waits for all of orbax's threads; after a failure of one, others may still be writing."""
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("orbax."):
            threading.Thread.join(thread)  # orbax's own `join` would raise the failure again


def collect_failures() -> None:
    """Deletes the other reads of a checkpoint that failed, whose tracebacks Python prints when they
    are deleted. TensorStore's threads may hold some for a moment."""
    end = time.monotonic() + _LONGEST_WAIT
    gc.collect()
    while any(map(_is_read_of_orbax, gc.get_objects())) and time.monotonic() < end:
        time.sleep(_POLL)
        gc.collect()


def _is_read_of_orbax(candidate: Any) -> bool:
    if not issubclass(type(candidate), asyncio.Task):  # isinstance would wake lazy modules
        return False
    code = getattr(candidate.get_coro(), "cr_code", None)
    return code is not None and _is_of_orbax(code.co_filename)


def _system_message(failure: Exception) -> str | None:
    if isinstance(failure, OSError):
        return failure.strerror
    code = re.search(r"os_error_code='(\d+)'", str(failure))  # in errors of TensorStore
    return os.strerror(int(code[1])) if code else None


def _is_no_error_of_orbax(record: LogRecord) -> bool:
    return record.levelno < ERROR or not _is_of_orbax(record.pathname)


def _is_no_lost_failure_of_orbax(record: LogRecord) -> bool:
    """Drops failures of TensorStore that orbax never awaited; they have no Python traceback."""
    if not record.exc_info:
        return True
    origin = record.exc_info[2]
    return origin is not None and not _leads_to_orbax(origin)


def _leads_to_orbax(origin: TracebackType | None) -> bool:
    return any(_is_of_orbax(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(origin))


def _is_of_orbax(file: str) -> bool:
    return "orbax" in Path(file).parts
