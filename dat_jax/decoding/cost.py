# SPDX-License-Identifier: Apache-2.0
"""The cost of decoding: work, sentences in work, memory and time."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from dat_jax.decoding.work import Work, sum_work


@dataclasses.dataclass(frozen=True)
class DecodeCost:
    """The cost of some sentences; `+` adds the cost of sentences decoded later."""

    work: Work  # numpy arrays, of all devices
    busiest: int  # block rows computed by the busiest device of each group
    in_work: int  # the maximum of sentences decoded together, on all devices
    peak_bytes: int  # memory of the largest compiled search on a device, parameters included
    seconds: float  # without compilation
    seconds_compiling: float

    @classmethod
    def nothing(cls, num_layers: int) -> "DecodeCost":
        """Returns the cost of no sentences."""
        return cls(sum_work(num_layers, []), 0, 0, 0, 0.0, 0.0)

    def __add__(self, other: "DecodeCost") -> "DecodeCost":
        return DecodeCost(
            self._work_with(other),
            self.busiest + other.busiest,
            max(self.in_work, other.in_work),
            max(self.peak_bytes, other.peak_bytes),
            self.seconds + other.seconds,
            self.seconds_compiling + other.seconds_compiling,
        )

    def alongside(self, other: "DecodeCost") -> "DecodeCost":
        """Returns the joint cost with sentences that another process decoded at the same time."""
        return DecodeCost(
            self._work_with(other),
            max(self.busiest, other.busiest),
            self.in_work + other.in_work,
            max(self.peak_bytes, other.peak_bytes),
            max(self.seconds, other.seconds),
            max(self.seconds_compiling, other.seconds_compiling),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns numbers and lists; see `from_json`."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"work": [counts.tolist() for counts in self.work]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "DecodeCost":
        """Reads the cost that `to_json` wrote."""
        work, *numbers = (values[field.name] for field in dataclasses.fields(cls))
        return cls(Work(*(np.asarray(counts, np.int64) for counts in work)), *numbers)

    def _work_with(self, other: "DecodeCost") -> Work:
        num_layers = len(self.work.ticks) - 1
        return sum_work(num_layers, [self.work, other.work])


def total(num_layers: int, costs: Iterable[DecodeCost]) -> DecodeCost:
    """Sums costs."""
    return sum(costs, DecodeCost.nothing(num_layers))
