# SPDX-License-Identifier: Apache-2.0
"""Tracing: the steps that were asked for and no other, whole, and only those that are made."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from dat_jax.training.profile import Profile


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[int]]]:
    """The steps in each trace that was ended."""
    traces: list[list[int]] = []
    under_way: list[list[int]] = []
    mark = jax.profiler.StepTraceAnnotation

    def note(name: str, step_num: int) -> jax.profiler.StepTraceAnnotation:
        for trace in under_way:
            trace.append(step_num)
        return mark(name, step_num=step_num)

    monkeypatch.setattr(jax.profiler, "StepTraceAnnotation", note)
    monkeypatch.setattr(jax.profiler, "start_trace", lambda _: under_way.append([]))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: traces.append(under_way.pop()))
    yield traces
    assert not under_way


def run(steps: range, profiled: range, folder: Path) -> None:
    """Makes some steps of nothing."""
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
def test_the_steps_of_the_range_are_traced(traced, profiled: range, expected, tmp_path: Path):
    run(range(1, 9), profiled, tmp_path)
    assert traced == expected


def test_a_run_that_goes_on_traces_what_is_left_of_them(traced, tmp_path: Path):
    for first in (3, 5, 7):
        run(range(first, 9), range(4, 7), tmp_path)
    assert traced == [[4, 5, 6], [5, 6]]


def test_a_run_that_fails_ends_its_trace(traced, tmp_path: Path):
    profile = Profile(range(1, 5), tmp_path)
    with pytest.raises(ZeroDivisionError), profile, profile.step(1, None):
        _ = 1 / 0
    assert traced == [[1]]


def test_what_made_the_state_before_is_waited_for(traced, tmp_path: Path, monkeypatch):
    waited = []
    monkeypatch.setattr(jax, "block_until_ready", waited.append)
    with Profile(range(2, 4), tmp_path) as profile:
        for step in range(1, 6):
            with profile.step(step, f"before {step}"):
                pass
    assert waited == ["before 2", "before 4"]


def test_a_trace_that_cannot_be_written_is_one_warning(
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
