# SPDX-License-Identifier: Apache-2.0
"""Metrics as sums and counts: added over devices, batches and steps, then divided once."""

from typing import NamedTuple

import jax
import numpy as np


class Mean(NamedTuple):
    """A sum and a count, whose quotient is the mean; `total` may have an axis of exits."""

    total: jax.Array | np.ndarray | float
    count: jax.Array | np.ndarray | float


Metrics = dict[str, Mean]


def add(left: Metrics, right: Metrics) -> Metrics:
    """Adds two sets of metrics with the same names and shapes."""
    return jax.tree.map(lambda a, b: a + b, left, right)


def compute(metrics: Metrics, exit_depths: tuple[int, ...]) -> dict[str, float]:
    """Divides each metric; an axis of exits becomes one value per depth, such as `name/exit_3`.

    Raises:
        ValueError: the axis is not as long as `exit_depths`.
    """
    values: dict[str, float] = {}
    for name, (total, count) in metrics.items():
        mean = np.asarray(total) / np.maximum(np.asarray(count), 1)
        if mean.ndim == 0:
            values[name] = float(mean)
        else:
            values |= {f"{name}/exit_{d}": float(m) for d, m in zip(exit_depths, mean, strict=True)}
    return values
