# SPDX-License-Identifier: Apache-2.0
"""Steps whose loss or gradient is no finite number: noticed, named, and few of them passed over."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dat_jax.data.batching import BatchIterator
from dat_jax.errors import UserError
from dat_jax.metrics import Metrics

_PAIRS_SHOWN = 5


class Made(NamedTuple):
    """A step that has been made: what it measured, and of which batch, by epoch and number."""

    step: int
    epoch: int
    batch: int
    metrics: Metrics


class Divergence:
    """Looks at the steps of a run, and lets so many that are not finite pass."""

    def __init__(self, most_skipped: int, batches: BatchIterator) -> None:
        """Has seen no step of this run."""
        self._most_skipped, self._skipped, self._batches = most_skipped, 0, batches

    def finite(
        self, made: Sequence[Made], saved: Sequence[int], report: Callable[[str], None]
    ) -> list[Metrics]:
        """Returns the metrics of the steps that are finite, and reports the others.

        Args:
            made: steps in their order.
            saved: the steps that have a checkpoint.
            report: takes a line for each step that is passed over.

        Raises:
            UserError: more than may be passed over are not finite.
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
            report(f"{what}: skipped, {self._skipped} of {self._most_skipped} that may be")
        return good

    def _describe(self, made: Made) -> str:
        pairs = np.sort(self._batches.pairs_of(made.epoch, made.batch))
        shown = ", ".join(map(str, pairs[:_PAIRS_SHOWN]))
        more = f" and {len(pairs) - _PAIRS_SHOWN} more" if len(pairs) > _PAIRS_SHOWN else ""
        return f"epoch {made.epoch}, batch {made.batch} (training pairs {shown}{more}, from 0)"


def _problem(metrics: Metrics) -> str | None:
    """Looks at the gradient too: it goes into the parameters, the loss comes from before."""
    for name in ("loss", "gradient_norm"):
        mean = float(np.asarray(metrics[name].total) / np.maximum(metrics[name].count, 1))
        if not math.isfinite(mean):
            return f"the {name} is {mean}"
    return None
