# SPDX-License-Identifier: Apache-2.0
"""Traces some steps with JAX's profiler, for TensorBoard."""

import contextlib
from pathlib import Path
from typing import Any

import jax
from absl import logging


class Profile:
    """Traces a range of steps; use it as a context."""

    def __init__(self, steps: range, folder: Path) -> None:
        """Names the steps to trace, which may be none, and the folder for the trace."""
        self._steps, self._folder = steps, folder
        self._tracing = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def step(self, number: int, state: Any) -> contextlib.AbstractContextManager[Any]:
        """Starts or stops the trace where `number` asks for it; returns the context that marks it.

        Waits for `state` before starting and stopping, because devices lag behind Python.
        """
        if (number in self._steps) != self._tracing:
            jax.block_until_ready(state)
            self._stop()
            if number in self._steps:
                jax.profiler.start_trace(self._folder)
                self._tracing = True
        return jax.profiler.StepTraceAnnotation("train", step_num=number)

    def _stop(self) -> None:
        """Writes the trace; only warns if that fails, so that training goes on."""
        if self._tracing:
            self._tracing = False
            try:
                jax.profiler.stop_trace()
            except jax.errors.JaxRuntimeError as error:
                logging.warning("cannot write the trace to %s: %s", self._folder, error)
