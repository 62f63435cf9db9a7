# SPDX-License-Identifier: Apache-2.0
"""A trace of some steps, by JAX's profiler, which TensorBoard opens."""

import contextlib
from pathlib import Path
from typing import Any

import jax
from absl import logging


class Profile:
    """Traces the steps of a range that a run makes; use it as a context."""

    def __init__(self, steps: range, folder: Path) -> None:
        """Will leave the trace in `folder`, which is made if need be; of no steps there is none."""
        self._steps, self._folder = steps, folder
        self._tracing = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def step(self, number: int, state: Any) -> contextlib.AbstractContextManager[Any]:
        """Begins or ends the trace if it is time to, and marks a step that is made from `state`.

        Devices run behind: what made `state` is waited for, and is no part of what comes after.
        """
        if (number in self._steps) != self._tracing:
            jax.block_until_ready(state)
            self._stop()
            if number in self._steps:
                jax.profiler.start_trace(self._folder)
                self._tracing = True
        return jax.profiler.StepTraceAnnotation("train", step_num=number)

    def _stop(self) -> None:
        """Writes the trace; one that cannot be written is no reason to end a training."""
        if self._tracing:
            self._tracing = False
            try:
                jax.profiler.stop_trace()
            except jax.errors.JaxRuntimeError as error:
                logging.warning("no trace could be written into %s: %s", self._folder, error)
