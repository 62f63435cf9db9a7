# SPDX-License-Identifier: Apache-2.0
"""A budget stops a training as a signal does; other stops are passed on."""

import signal
import time

import pytest

from benchmarks.reproduce.budget import Budget, Spent
from dat_jax.errors import Stopped
from dat_jax.training.stopping import StopRequest


def train(steps: int) -> int:
    """Runs steps of 10 ms until a signal arrives, like the training loop."""
    with StopRequest() as request:
        for step in range(1, steps + 1):
            time.sleep(0.01)
            if asked := request.after(step):
                raise Stopped(f"at step {step}", int(asked))
    return steps


def test_a_training_stops_when_the_time_ends():
    budget, started = Budget(0.2 / 60), time.monotonic()
    with pytest.raises(Spent), budget.stopping():
        train(1_000)
    assert time.monotonic() - started >= 0.2
    with pytest.raises(Spent):
        budget.check()


def test_a_training_that_cannot_handle_the_first_signal_gets_another():
    budget = Budget(0.1 / 60)
    with pytest.raises(Spent), budget.stopping():
        time.sleep(0.3)  # the signal comes now
        train(1_000)


@pytest.mark.parametrize("minutes", [None, 1.0])
def test_a_training_that_ends_in_time_is_not_stopped(minutes: float | None):
    budget, before = Budget(minutes), signal.getsignal(signal.SIGALRM)
    with budget.stopping():
        assert train(3) == 3
    budget.check()
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_other_requests_to_stop_are_passed_on():
    with pytest.raises(Stopped, match="by hand"), Budget(1.0).stopping():
        raise Stopped("by hand", 0)


def test_without_time_nothing_starts():
    budget = Budget(0)
    with pytest.raises(Spent), budget.stopping():
        pytest.fail("it started")
