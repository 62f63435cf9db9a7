# SPDX-License-Identifier: Apache-2.0
"""A budget of time: when it is spent, a training is stopped as by a signal, and may go on later."""

import contextlib
import signal
import time
from collections.abc import Generator
from types import FrameType

from dat_jax.errors import Stopped

_AT_ONCE = 1e-3  # seconds; 0 would turn the timer off
_AGAIN = 1.0  # seconds after which a training that could not hear yet is asked once more


class Spent(Exception):
    """The time is up."""


class Budget:
    """So many minutes from now on, or all the time in the world."""

    def __init__(self, minutes: float | None) -> None:
        """Starts the clock."""
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        """The seconds that are left; 0 if none are."""
        return float("inf") if self._end is None else max(self._end - time.monotonic(), 0.0)

    def check(self) -> None:
        """Raises `Spent` if the time is up."""
        if not self.left:
            raise Spent

    @contextlib.contextmanager
    def stopping(self) -> Generator[None, None, None]:
        """Stops the training that is run inside when the time is up, after the step at hand.

        Raises:
            Spent: it is; what was trained is saved.
            Stopped: something else asked for it.
        """
        self.check()
        if self._end is None:
            yield
            return
        before = signal.signal(signal.SIGALRM, _stop)
        signal.setitimer(signal.ITIMER_REAL, self.left or _AT_ONCE, _AGAIN)
        try:
            yield
        except Stopped:
            self.check()
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _stop(_: int, __: FrameType | None) -> None:
    """Asks the training loop to stop, if it is there to hear it: else it would end the process."""
    if callable(signal.getsignal(signal.SIGTERM)):
        signal.raise_signal(signal.SIGTERM)
