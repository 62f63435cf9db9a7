# SPDX-License-Identifier: Apache-2.0
"""Steps whose loss or gradient is not finite: reports them, and ends the run after too many."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dat_jax.data.batching import BatchIterator
from dat_jax.errors import UserError
from dat_jax.metrics import Metrics

_PAIRS_SHOWN = 5


class Made(NamedTuple):
    """A finished step: its metrics, and the epoch and number of its batch."""

    step: int
    epoch: int
    batch: int
    metrics: Metrics


class Divergence:
    """Counts the steps since launch that are not finite; tolerates up to `most_skipped`."""

    def __init__(self, most_skipped: int, batches: BatchIterator) -> None:
        """Starts counting at 0; `batches` tells the training pairs of a batch."""
        self._most_skipped, self._skipped, self._batches = most_skipped, 0, batches

    def finite(
        self, made: Sequence[Made], saved: Sequence[int], report: Callable[[str], None]
    ) -> list[Metrics]:
        """Returns the metrics of finite steps and reports the others.

        Args:
            made: steps in their order.
            saved: the steps that have a checkpoint.
            report: called with one line per skipped step.

        Raises:
            UserError: more than `most_skipped` steps since launch are not finite.
        """
        good: list[Metrics] = []
        for one in made:
            problem = _problem(one.metrics)
            if not problem:
                good.append(one.metrics)
                continue
            self._skipped += 1
            what = f"{problem} at step {one.step}, of {self._describe(one)}"
            if self._skipped > self._most_skipped:
                last = (
                    f"the last checkpoint is of step {saved[-1]}" if saved else "nothing is saved"
                )
                raise UserError(
                    f"{what}, and {last}: lower optimizer.learning_rate or raise "
                    "optimizer.warmup_steps, in another --workdir, or raise training.skip_nonfinite"
                )
            report(f"{what}: skipped, {self._skipped} of at most {self._most_skipped}")
        return good

    def _describe(self, made: Made) -> str:
        pairs = np.sort(self._batches.pairs_of(made.epoch, made.batch))
        shown = ", ".join(map(str, pairs[:_PAIRS_SHOWN]))
        more = f" and {len(pairs) - _PAIRS_SHOWN} more" if len(pairs) > _PAIRS_SHOWN else ""
        return f"epoch {made.epoch}, batch {made.batch} (training pairs {shown}{more}, from 0)"


def _problem(metrics: Metrics) -> str | None:
    """Returns a description of a loss or gradient norm that is not finite, or None.

    The gradient can be infinite where the loss is not.
    """
    for name in ("loss", "gradient_norm"):
        total = float(np.asarray(metrics[name].total))
        if not math.isfinite(total):
            return f"the {name} is {total}"
    return None
