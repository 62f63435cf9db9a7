# SPDX-License-Identifier: Apache-2.0
"""Requests to stop, by SIGINT (Ctrl-C) or SIGTERM, that wait until a step has been made."""

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType

from dat_jax import processes

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Notes the first signal that asks to stop; the next one is not held back. Use as a context.

    Only a program's main thread hears of signals; in another, there is nothing to note. Of several
    processes one need be asked: all hear of it after the same step, and of SIGTERM, whichever it
    was.
    """

    def __init__(self) -> None:
        """Has heard nothing yet."""
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
        """The signal that asks to stop after this step, which has just been made, if one does."""
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
