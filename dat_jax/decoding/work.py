# SPDX-License-Identifier: Apache-2.0
"""Counts of what the engine ran, kept by the engine itself; no estimates."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dat_jax.types import Array


class Work(NamedTuple):
    """Counts of each stage: blocks 1 to N, then the classifiers. Arrays of JAX or numpy."""

    ticks: Any  # [N + 1] runs of the stage
    rows: Any  # [N + 1] active rows, summed over runs
    computed: Any  # [N + 1] computed rows, padding included


def no_work(num_layers: int) -> Work:
    """Returns zero counts."""
    return Work(*[jnp.zeros(num_layers + 1, jnp.int32)] * 3)


def add_run(work: Work, stage: int, needed: Array, computed: Array) -> Work:
    """Counts a run of a stage, numbered from 0; no run if it computed no rows."""
    return Work(
        work.ticks.at[stage].add(computed > 0),
        work.rows.at[stage].add(needed),
        work.computed.at[stage].add(computed),
    )


def sum_work(num_layers: int, works: Iterable[Work]) -> Work:
    """Sums any number of works into numpy arrays of 64 bits."""
    nothing = Work(*[np.zeros(num_layers + 1, np.int64)] * 3)
    counts = zip(nothing, *works, strict=True)
    return Work(*(np.sum(np.asarray(count), axis=0, dtype=np.int64) for count in counts))


def describe(work: Work, tokens: int) -> dict[str, Any]:
    """Describes the work done for this many tokens, in the fields of `summary.json`.

    `occupancy` is the share of computed rows that were active; `layers_executed_per_token` counts
    computed rows of blocks, padding included.
    """
    return {
        "layers_executed_per_token": int(work.computed[:-1].sum()) / max(tokens, 1),
        "ticks": int(work.ticks.sum()),
        "ticks_per_stage": work.ticks.tolist(),
        "rows_per_stage": work.rows.tolist(),
        "occupancy": int(work.rows.sum()) / max(int(work.computed.sum()), 1),
    }
