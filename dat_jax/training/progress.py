# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a training run: a bar on a terminal, now and then a line elsewhere."""

import sys
import time

from tqdm import tqdm


class Progress:
    """Counts steps and target tokens; use it as a context."""

    def __init__(self, first_step: int, steps: int) -> None:
        """Starts the clock; `first_step` of `steps` have been made in earlier runs."""
        self._bar = tqdm(
            total=steps,
            initial=first_step,
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
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

    def lap(self, tokens: float) -> float:
        """Returns the tokens per second since the last lap, or since `skip`."""
        seconds = time.monotonic() - self._lap_started
        self.skip()
        return tokens / seconds

    def skip(self) -> None:
        """Leaves the time since the last lap out of the next one."""
        self._lap_started = time.monotonic()

    def show(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Shows how training goes and, where no bar does it, how long it will take."""
        if not self._bar.disable:
            self._bar.set_postfix_str(f"loss {loss:.3f}, {tokens_per_second:,.0f} tokens/s")
            return
        elapsed = time.monotonic() - self._started
        left = elapsed / (step - self._first_step) * (self._steps - step)
        self.print(
            f"step {step:,} of {self._steps:,}: loss {loss:.3f}, "
            f"{tokens_per_second:,.0f} tokens/s, {tqdm.format_interval(left)} left"
        )

    def print(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()
