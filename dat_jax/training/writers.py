# SPDX-License-Identifier: Apache-2.0
"""Progress bar or log lines of a training run, and metrics written to files."""

import contextlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dat_jax.errors import UserError
from dat_jax.runtime.processes import is_first
from dat_jax.storage.files import write_text


class Progress:
    """Counts and shows steps, in the first process only; use it as a context."""

    def __init__(self, first_step: int, steps: int) -> None:
        """Starts the clock; earlier launches have made `first_step` of `steps`."""
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
        """Starts a new lap without counting the time since the last one."""
        self._lap_started = time.monotonic()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the state of training; without a bar, prints a line with the time left.

        `values` holds `epoch`, `loss`, `perplexity`, `tokens_per_second` and, if known, `mfu`.
        """
        state = (
            f"epoch {values['epoch']:.2f}, loss {values['loss']:.3f}, perplexity "
            f"{values['perplexity']:.2f}, {values['tokens_per_second']:,.0f} tokens/s"
        )
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

    Writes synchronously, so that a full disk stops training.
    """

    def __init__(self, path: Path, tensorboard: Path, last_step: int) -> None:
        """Continues after `last_step`, and drops lines of later steps, which will be made again.

        Raises:
            UserError: the file is damaged.
        """
        from tensorboardX.event_file_writer import EventsWriter  # slow to import

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
        """Writes one line, and one TensorBoard scalar per value."""
        from tensorboardX.summary import scalar

        self._lines.write(json.dumps({"step": step} | values) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._add_event(step, summary=scalar(name, value))
        self._events.flush()

    def _add_event(self, step: int, **content: Any) -> None:
        # ty does not see this class, which protobuf creates at import.
        from tensorboardX.proto.event_pb2 import Event  # ty: ignore

        self._events.write_event(Event(wall_time=time.time(), step=step, **content))
