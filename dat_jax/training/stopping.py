# SPDX-License-Identifier: Apache-2.0
"""Requests to stop by SIGINT (Ctrl-C) or SIGTERM, handled after the current step."""

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType

from dat_jax.runtime import processes

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Notes the first SIGINT or SIGTERM; a second one ends the process as usual. A context.

    Signals reach only the main thread; in another thread this does nothing. Of several processes
    any one may get the signal: all stop after the same step, and all report SIGTERM.
    """

    def __init__(self) -> None:
        """Starts without a request."""
        self._heard: signal.Signals | None = None
        self._before: dict[signal.Signals, signal._HANDLER] = {}
        self._stack = contextlib.ExitStack()
        self._all_stop: Callable[[int], bool] | None = None

    def __enter__(self) -> "StopRequest":
        several = processes.count() > 1
        if several:
            self._all_stop = self._stack.enter_context(processes.agreeing_to_stop())
        if threading.current_thread() is threading.main_thread():
            noted = _SIGNALS[:1] if several else _SIGNALS
            self._before = {number: signal.signal(number, self._note) for number in noted}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        self._stack.close()

    def after(self, step: int) -> signal.Signals | None:
        """Returns the signal that asks to stop after `step`, which has just been made, or None."""
        if self._all_stop is None:
            return self._heard
        return signal.SIGTERM if self._all_stop(step) else None

    def _note(self, number: int, _: FrameType | None) -> None:
        self._heard = signal.Signals(number)
        self._restore()
        if self._all_stop is not None:
            signal.raise_signal(signal.SIGTERM)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
