# SPDX-License-Identifier: Apache-2.0
"""Failures: the system's words for them, and which of those nobody can catch go unheard."""

import errno
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import orbax.checkpoint as ocp
import pytest

from dat_jax.errors import UserError
from dat_jax.training.failures import explained, quieten


@pytest.mark.parametrize(
    ("failure", "kept", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            [3, 7],
            "runs: a checkpoint cannot be written, No space left on device: mend that and run "
            "again, which goes on from step 7",
        ),
        (
            ValueError("OUT_OF_RANGE: Failed writing\n5 bytes [os_error_code='27']"),
            [],
            "runs: a checkpoint cannot be written, File too large: mend that and run again, which "
            "starts again",
        ),
    ],
)
def test_what_the_system_refuses_is_one_line_in_its_words(
    failure: Exception, kept: list[int], line: str
):
    error = explained(failure, Path("runs"), kept)
    assert isinstance(error, UserError)
    assert str(error) == line


@pytest.mark.parametrize("defect", [ValueError("Found empty item."), TimeoutError("A barrier.")])
def test_a_defect_stays_what_it_is(defect: Exception):
    assert explained(defect, Path("runs"), [7]) is defect


def test_what_orbax_raises_elsewhere_goes_unheard_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    quieten.__wrapped__()
    with pytest.raises(ValueError, match="best_mode") as of_orbax:
        ocp.CheckpointManagerOptions(best_mode="none")
    failures = [of_orbax.value, RuntimeError("Event loop is closed"), ValueError("another")]
    for failure in failures:
        unraisable = SimpleNamespace(exc_value=failure, exc_traceback=failure.__traceback__)
        sys.unraisablehook(unraisable)
    assert [unraisable.exc_value for unraisable in heard] == failures[2:]

    with pytest.raises(ZeroDivisionError) as another:
        _ = 1 / 0
    for failure in (of_orbax.value, ValueError("of tensorstore"), another.value):
        logging.getLogger("asyncio").error("never retrieved", exc_info=failure)
    (record,) = caplog.records
    assert record.exc_info[1] is another.value
