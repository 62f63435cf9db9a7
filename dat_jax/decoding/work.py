# SPDX-License-Identifier: Apache-2.0
"""Counts of what an engine did, made by itself: nothing here is an estimate."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dat_jax.types import Array


class Work(NamedTuple):
    """Runs of each stage: blocks 1 to N, and last the classifiers. Arrays of JAX or numpy."""

    ticks: Any  # [N + 1] how often the stage was run
    rows: Any  # [N + 1] rows that needed it, summed over these runs
    computed: Any  # [N + 1] rows that were computed, idle ones included


def no_work(num_layers: int) -> Work:
    """Before anything is done."""
    return Work(*[jnp.zeros(num_layers + 1, jnp.int32)] * 3)


def add_run(work: Work, stage: int, needed: Array, computed: Array) -> Work:
    """Counts a run of a stage, numbered from 0, that computed this many rows for those that needed
    it; none if it computed none."""
    return Work(
        work.ticks.at[stage].add(computed > 0),
        work.rows.at[stage].add(needed),
        work.computed.at[stage].add(computed),
    )


def sum_work(num_layers: int, works: Iterable[Work]) -> Work:
    """The sums of any number of works, as numpy arrays that do not overflow."""
    nothing = Work(*[np.zeros(num_layers + 1, np.int64)] * 3)
    counts = zip(nothing, *works, strict=True)
    return Work(*(np.sum(np.asarray(count), axis=0, dtype=np.int64) for count in counts))


def describe(work: Work, tokens: int) -> dict[str, Any]:
    """Describes what was run for so many tokens, in the words of `summary.json`.

    `occupancy` is the share of the rows that were computed which needed it;
    `layers_executed_per_token` is the blocks' rows that were computed, idle ones included.
    """
    return {
        "layers_executed_per_token": int(work.computed[:-1].sum()) / max(tokens, 1),
        "ticks": int(work.ticks.sum()),
        "ticks_per_stage": work.ticks.tolist(),
        "rows_per_stage": work.rows.tolist(),
        "occupancy": int(work.rows.sum()) / max(int(work.computed.sum()), 1),
    }
