# SPDX-License-Identifier: Apache-2.0
"""Requests to stop, by SIGINT (Ctrl-C) or SIGTERM, that wait until a step has been made."""

import signal
import threading
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Notes the first signal that asks to stop; the next one is not held back. Use as a context.

    Only a program's main thread hears of signals; in another, there is nothing to note.
    """

    def __init__(self) -> None:
        """Has heard nothing yet."""
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
