# SPDX-License-Identifier: Apache-2.0
"""A time budget: stops a training when it is spent, so that a later run can resume it."""

import contextlib
import signal
import time
from collections.abc import Generator
from types import FrameType

from dat_jax.errors import Stopped

_AT_ONCE = 1e-3  # seconds; 0 would turn the timer off
_AGAIN = 1.0  # seconds until the next signal, for a training that could not handle the first yet


class Spent(Exception):
    """The budget is spent."""


class Budget:
    """A number of minutes from now on, or unlimited time."""

    def __init__(self, minutes: float | None) -> None:
        """Starts the clock; None is unlimited."""
        self._end = float("inf") if minutes is None else time.monotonic() + 60 * minutes

    def check(self) -> None:
        """Raises `Spent` if no time is left."""
        if self._end <= time.monotonic():
            raise Spent

    @contextlib.contextmanager
    def stopping(self) -> Generator[None, None, None]:
        """Stops the training that runs inside after the step during which the time ends.

        Raises:
            Spent: the time ended; the training is saved.
            Stopped: something else stopped the training.
        """
        self.check()
        if self._end == float("inf"):
            yield
            return
        before = signal.signal(signal.SIGALRM, _stop)
        left = max(self._end - time.monotonic(), _AT_ONCE)
        signal.setitimer(signal.ITIMER_REAL, left, _AGAIN)
        try:
            yield
        except Stopped:
            self.check()
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _stop(_: int, __: FrameType | None) -> None:
    """Sends SIGTERM if the training loop handles it; otherwise it would end the process."""
    if callable(signal.getsignal(signal.SIGTERM)):
        signal.raise_signal(signal.SIGTERM)
