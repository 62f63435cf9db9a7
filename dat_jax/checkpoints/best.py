# SPDX-License-Identifier: Apache-2.0
"""The best checkpoint, by the validations that training has recorded in `metrics.jsonl`.

Nothing else remembers the best: a resumed run drops the lines of later steps and reads the rest.
"""

import json
import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dat_jax.config import Config

VALID = "valid/"
"""What names of validation metrics start with."""


class Criterion(NamedTuple):
    """The metric that decides, `training.best_by`."""

    metric: str  # its name in `metrics.jsonl`
    sign: int  # 1 if more is better, -1 if less is better

    @classmethod
    def of(cls, config: Config) -> "Criterion":
        """Returns the criterion of a run."""
        training = config.training
        if training.best_by == "bleu":
            deepest = max(training.bleu_exits or config.model.exit_depths)
            return cls(f"{VALID}bleu/exit_{deepest}", 1)
        return cls(f"{VALID}{training.best_by}", -1)


class Best:
    """The measurements of a criterion, by step; those that are not finite are left out."""

    def __init__(self, criterion: Criterion, recorded: Iterable[Mapping[str, Any]] = ()) -> None:
        """Starts from lines of `metrics.jsonl`."""
        self.criterion = criterion
        self._values: dict[int, float] = {}
        for line in recorded:
            self._add(line["step"], line)

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds what was measured after `step`, with names without `valid/`."""
        self._add(step, {f"{VALID}{name}": value for name, value in metrics.items()})

    def _add(self, step: int, line: Mapping[str, Any]) -> None:
        if math.isfinite(value := line.get(self.criterion.metric, math.nan)):
            self._values[step] = value

    def step(self, saved: Collection[int] | None = None) -> int | None:
        """Returns the best step, the first of equals, of those with a checkpoint or of all."""
        steps = self._values if saved is None else self._values.keys() & saved
        ranked = ((-self.criterion.sign * self._values[step], step) for step in steps)
        return min(ranked, default=(0.0, None))[1]

    @property
    def waited(self) -> int:
        """The number of measurements since the best of all."""
        best = self.step()
        return 0 if best is None else sum(step > best for step in self._values)

    def describe(self, step: int) -> str:
        """Returns a step with its measurement, in words."""
        return f"step {step:,}, {self.criterion.metric} {self._values[step]:.4g}"


def read_validations(path: Path) -> list[dict[str, Any]]:
    """Returns the steps and validation metrics in `metrics.jsonl`; none if it is missing.

    Skips a line that is incomplete, because the run may be training.
    """
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            values = dict(json.loads(line))
        except ValueError:
            continue
        kept = {name: value for name, value in values.items() if name.startswith(VALID)}
        if kept and "step" in values:
            found.append({"step": values["step"], **kept})
    return found
