# SPDX-License-Identifier: Apache-2.0
"""Orbax's failures: one clear line each, and silence for those that nobody can catch."""

import asyncio
import errno
import logging
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import orbax.checkpoint as ocp
import pytest

from dat_jax.checkpoints import orbax_errors
from dat_jax.checkpoints.orbax_errors import collect_failures, explained, hide_tracebacks
from dat_jax.errors import UserError


@pytest.mark.parametrize(
    ("failure", "kept", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            [3, 7],
            "runs: a checkpoint cannot be written, No space left on device: fix that and run "
            "again to resume from step 7",
        ),
        (
            ValueError("OUT_OF_RANGE: Failed writing\n5 bytes [os_error_code='27']"),
            [],
            "runs: a checkpoint cannot be written, File too large: fix that and run again to "
            "start again",
        ),
    ],
)
def test_a_system_error_is_one_line_with_its_own_message(
    failure: Exception, kept: list[int], line: str
):
    error = explained(failure, Path("runs"), kept)
    assert isinstance(error, UserError)
    assert str(error) == line


def test_a_lost_process_is_reported_with_the_message_of_jax():
    failure = TimeoutError("Timed out while waiting for a barrier.")
    failure.__cause__ = lost = jax.errors.JaxRuntimeError("UNAVAILABLE: task 1 is unhealthy")
    assert explained(failure, Path("runs"), [7]) is lost


@pytest.mark.parametrize("defect", [ValueError("Found empty item."), TimeoutError("A barrier.")])
def test_other_errors_are_unchanged(defect: Exception):
    assert explained(defect, Path("runs"), [7]) is defect


def test_only_unraisable_errors_of_orbax_are_hidden(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    shown = []
    show = shown.append
    monkeypatch.setattr(sys, "unraisablehook", show)
    show_tracebacks = hide_tracebacks()
    with pytest.raises(ValueError, match="best_mode") as of_orbax:
        ocp.CheckpointManagerOptions(best_mode="none")
    in_orbax = SimpleNamespace(cr_code=ocp.CheckpointManagerOptions.__post_init__.__code__)
    failures = {
        of_orbax.value: None,
        RuntimeError("Event loop is closed"): None,
        ValueError("of a coroutine"): in_orbax,
        ValueError("another"): SimpleNamespace(cr_code=test_other_errors_are_unchanged.__code__),
        ValueError("of a file"): object(),
    }
    for failure, source in failures.items():
        unraisable = SimpleNamespace(
            exc_value=failure, exc_traceback=failure.__traceback__, object=source
        )
        sys.unraisablehook(unraisable)
    assert [str(unraisable.exc_value) for unraisable in shown] == ["another", "of a file"]

    with pytest.raises(ZeroDivisionError) as another:
        _ = 1 / 0
    for failure in (of_orbax.value, ValueError("of tensorstore"), another.value):
        logging.getLogger("asyncio").error("never retrieved", exc_info=failure)
    (record,) = caplog.records
    assert record.exc_info[1] is another.value
    show_tracebacks()
    assert sys.unraisablehook == show


def test_only_reads_of_orbax_are_waited_for(monkeypatch: pytest.MonkeyPatch):
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: pytest.fail("it waits"))
    monkeypatch.setattr(orbax_errors, "time", clock)

    async def wait_for_another() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        collect_failures()
        task.cancel()

    asyncio.run(wait_for_another())
