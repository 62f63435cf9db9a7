# SPDX-License-Identifier: Apache-2.0
"""Reports of training and validation metrics, on the terminal and to files.

Only the first of several processes reports.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dat_jax.checkpoints.best import VALID
from dat_jax.config import Config
from dat_jax.metrics import Metrics, compute
from dat_jax.runtime.processes import is_first
from dat_jax.training.optimizer import learning_rate
from dat_jax.training.writers import MetricWriter, Progress


class Reports:
    """The progress of a run and its metrics; use it as a context."""

    def __init__(
        self,
        config: Config,
        metrics: Path,
        tensorboard: Path,
        first_step: int,
        peak_flops: float | None,
    ) -> None:
        """Continues a file of JSON lines and a TensorBoard folder after `first_step`.

        `peak_flops` is the peak FLOP/s of all devices together, or None if unknown.
        """
        self._depths, self._peak_flops = config.model.exit_depths, peak_flops
        self._learning_rate = learning_rate(config)
        with contextlib.ExitStack() as stack:
            self._writer = None
            if is_first():
                self._writer = stack.enter_context(MetricWriter(metrics, tensorboard, first_step))
            self.progress = stack.enter_context(Progress(first_step, config.training.steps))
            self._stack = stack.pop_all()

    def __enter__(self) -> "Reports":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def trained(self, step: int, epoch: float, sums: Metrics) -> None:
        """Reports the summed metrics of the steps since the last report, up to `step`; `epoch` is
        how many times the data has been passed through."""
        values, seconds = compute(sums, self._depths), self.progress.lap()
        values |= {"epoch": epoch, "perplexity": self._perplexity(values)}
        values["learning_rate"] = float(np.asarray(self._learning_rate(step - 1)))
        values["tokens_per_second"] = float(np.asarray(sums["loss"].count)) / seconds
        if self._peak_flops is not None:
            values["mfu"] = float(np.asarray(sums["flops"].total)) / seconds / self._peak_flops
        self.progress.show(step, values)
        self._write(step, {f"train/{name}": value for name, value in values.items()})

    def validated(self, step: int, values: dict[str, float]) -> None:
        """Reports the metrics of the validation split; its time does not count as training."""
        values = values | {"perplexity": self._perplexity(values)}
        self._write(step, {f"{VALID}{name}": value for name, value in values.items()})
        exits = ", ".join(f"{values[f'nll/exit_{depth}']:.3f}" for depth in self._depths)
        line = (
            f"step {step:,}: validation loss {values['loss']:.3f}, perplexity "
            f"{values['perplexity']:.2f}, nll at each exit {exits}"
        )
        if "exit_loss" in values:
            line += (
                f"; exit head: loss {values['exit_loss']:.3f}, average exit "
                f"{values['expected_average_exit']:.2f}, oracle's "
                f"{values['oracle_average_exit']:.2f}"
            )
        self.progress.print(line)
        self.progress.skip()

    def translated(self, step: int, scores: Mapping[str, float], samples: Sequence[str]) -> None:
        """Reports BLEU on validation sentences, by exit, and lines that show some of them."""
        self._write(step, {f"{VALID}{name}": value for name, value in scores.items()})
        each = ", ".join(f"{name.rpartition('_')[2]}: {bleu:.1f}" for name, bleu in scores.items())
        self.progress.print(f"step {step:,}: validation BLEU by exit, greedy, {each}")
        for line in samples:
            self.progress.print(f"  {line}")
        self.progress.skip()

    def _perplexity(self, values: Mapping[str, float]) -> float:
        """Returns the perplexity of a token at the last exit; infinite if it overflows."""
        with np.errstate(over="ignore"):
            return float(np.exp(values[f"nll/exit_{self._depths[-1]}"]))

    def _write(self, step: int, values: dict[str, float]) -> None:
        if self._writer is not None:
            self._writer.write(step, values)
