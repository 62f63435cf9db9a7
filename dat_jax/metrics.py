# SPDX-License-Identifier: Apache-2.0
"""Metrics as sums and counts, which add up over devices, batches and steps before one division."""

from typing import NamedTuple

import jax
import numpy as np


class Mean(NamedTuple):
    """A mean not yet divided; `total` may have an axis of exits."""

    total: jax.Array | np.ndarray | float
    count: jax.Array | np.ndarray | float


Metrics = dict[str, Mean]


def add(left: Metrics, right: Metrics) -> Metrics:
    """Adds two sets of metrics that have the same names and shapes."""
    return jax.tree.map(lambda a, b: a + b, left, right)


def compute(metrics: Metrics, exit_depths: tuple[int, ...]) -> dict[str, float]:
    """Divides each metric; one with an axis of exits becomes one value per depth, `name/exit_3`.

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
