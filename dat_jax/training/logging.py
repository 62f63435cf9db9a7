# SPDX-License-Identifier: Apache-2.0
"""Reports of a training run: to a person, a bar or now and then a line; to files, its metrics."""

import contextlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dat_jax.errors import UserError
from dat_jax.files import write_text
from dat_jax.processes import is_first


class Progress:
    """Counts steps and target tokens; use it as a context.

    Of several processes that train together, the first shows them.
    """

    def __init__(self, first_step: int, steps: int) -> None:
        """Starts the clock; `first_step` of `steps` have been made in earlier runs."""
        self._bar = tqdm(
            total=steps,
            initial=first_step,
            unit="step",
            dynamic_ncols=True,
            disable=not (is_first() and sys.stderr.isatty()),
        )
        self._steps = steps
        self._first_step = first_step
        self._started = self._lap_started = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self) -> None:
        """Counts a step."""
        self._bar.update()

    def lap(self) -> float:
        """Returns the seconds since the last lap, or since `skip`."""
        seconds = time.monotonic() - self._lap_started
        self.skip()
        return seconds

    def skip(self) -> None:
        """Leaves the time since the last lap out of the next one."""
        self._lap_started = time.monotonic()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Shows how training goes and, where no bar does it, how long it will take.

        `values` hold `loss`, `tokens_per_second` and, if it is known, `mfu`.
        """
        state = f"loss {values['loss']:.3f}, {values['tokens_per_second']:,.0f} tokens/s"
        if "mfu" in values:
            state += f", MFU {values['mfu']:.1%}"
        if not self._bar.disable:
            self._bar.set_postfix_str(state)
            return
        elapsed = time.monotonic() - self._started
        remaining = elapsed / (step - self._first_step) * (self._steps - step)
        self.print(
            f"step {step:,} of {self._steps:,}: {state}, {tqdm.format_interval(remaining)} left"
        )

    def print(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        if is_first():
            tqdm.write(line, file=sys.stderr)
            sys.stderr.flush()


class MetricWriter:
    """Appends to a file of JSON lines and to a TensorBoard folder; use it as a context.

    Both are written at once, not behind training, so that a full disk stops it.
    """

    def __init__(self, path: Path, tensorboard: Path, last_step: int) -> None:
        """Goes on after `last_step`; later ones, which will be made again, are dropped.

        Raises:
            UserError: what is there is damaged.
        """
        from tensorboardX.event_file_writer import EventsWriter  # slow, and of use only here

        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole_lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)
        try:
            kept = "".join(line for line in whole_lines if json.loads(line)["step"] <= last_step)
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{path} is damaged: restore it, or move it away") from None
        if kept != text:
            write_text(path, kept)
        tensorboard.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            self._lines = stack.enter_context(path.open("a", encoding="utf-8"))
            self._events = stack.enter_context(
                contextlib.closing(EventsWriter(str(tensorboard / "events")))
            )
            self._add_event(last_step + 1, session_log={"status": "START"})
            self._stack = stack.pop_all()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes one line, and one scalar for each value."""
        from tensorboardX.summary import scalar

        self._lines.write(json.dumps({"step": step} | values) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._add_event(step, summary=scalar(name, value))
        self._events.flush()

    def _add_event(self, step: int, **content: Any) -> None:
        # It is made when it is imported, which ty does not see.
        from tensorboardX.proto.event_pb2 import Event  # ty: ignore

        self._events.write_event(Event(wall_time=time.time(), step=step, **content))
