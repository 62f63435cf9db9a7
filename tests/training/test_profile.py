# SPDX-License-Identifier: Apache-2.0
"""Profiling traces exactly the requested steps that the run makes."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from dat_jax.training.profile import Profile


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[int]]]:
    """The steps in each finished trace."""
    traces: list[list[int]] = []
    running: list[list[int]] = []
    mark = jax.profiler.StepTraceAnnotation

    def note(name: str, step_num: int) -> jax.profiler.StepTraceAnnotation:
        for trace in running:
            trace.append(step_num)
        return mark(name, step_num=step_num)

    monkeypatch.setattr(jax.profiler, "StepTraceAnnotation", note)
    monkeypatch.setattr(jax.profiler, "start_trace", lambda _: running.append([]))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: traces.append(running.pop()))
    yield traces
    assert not running


def run(steps: range, profiled: range, folder: Path) -> None:
    """Runs empty steps."""
    with Profile(profiled, folder) as profile:
        for step in steps:
            with profile.step(step, jnp.zeros(2)):
                pass


@pytest.mark.parametrize(
    ("profiled", "expected"),
    [
        (range(3, 6), [[3, 4, 5]]),
        (range(3, 4), [[3]]),
        (range(1, 3), [[1, 2]]),
        (range(7, 9), [[7, 8]]),
        (range(0), []),
    ],
)
def test_the_requested_steps_are_traced(traced, profiled: range, expected, tmp_path: Path):
    run(range(1, 9), profiled, tmp_path)
    assert traced == expected


def test_a_resumed_run_traces_the_remaining_steps(traced, tmp_path: Path):
    for first in (3, 5, 7):
        run(range(first, 9), range(4, 7), tmp_path)
    assert traced == [[4, 5, 6], [5, 6]]


def test_a_failed_run_ends_its_trace(traced, tmp_path: Path):
    profile = Profile(range(1, 5), tmp_path)
    with pytest.raises(ZeroDivisionError), profile, profile.step(1, None):
        _ = 1 / 0
    assert traced == [[1]]


def test_a_trace_starts_and_ends_after_pending_work(traced, tmp_path: Path, monkeypatch):
    waited = []
    monkeypatch.setattr(jax, "block_until_ready", waited.append)
    with Profile(range(2, 4), tmp_path) as profile:
        for step in range(1, 6):
            with profile.step(step, f"before {step}"):
                pass
    assert waited == ["before 2", "before 4"]


def test_a_trace_that_cannot_be_written_gives_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def refuse() -> None:
        raise jax.errors.JaxRuntimeError("FAILED_PRECONDITION: not a directory")

    monkeypatch.setattr(jax.profiler, "start_trace", lambda _: None)
    monkeypatch.setattr(jax.profiler, "stop_trace", refuse)
    run(range(1, 3), range(1, 2), tmp_path)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"cannot write the trace to {tmp_path}: FAILED_PRECONDITION: not a directory"
    )
