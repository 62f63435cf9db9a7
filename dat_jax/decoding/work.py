# SPDX-License-Identifier: Apache-2.0
"""What an engine did, as it counted itself: nothing here is an estimate."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from dat_jax.types import Array


class Work(NamedTuple):
    """Runs of each stage: blocks 1 to N, and last the classifiers. Arrays of JAX or numpy."""

    ticks: Any  # [N + 1] how often the stage was run
    rows: Any  # [N + 1] rows that needed it, summed over these runs
    computed: Any  # [N + 1] rows that were computed, idle ones included


def no_work(num_layers: int) -> Work:
    """Before anything is done."""
    return Work(*[jnp.zeros(num_layers + 1, jnp.int32)] * 3)


def add_runs(work: Work, stage: Array | int, runs: Array | int, rows: Array, computed: int) -> Work:
    """Counts runs of a stage, numbered from 0.

    Args:
        work: so far.
        stage: which.
        runs: how often it was run.
        rows: rows that needed it, in all of these runs.
        computed: rows that each run computed.
    """
    return Work(
        work.ticks.at[stage].add(runs),
        work.rows.at[stage].add(rows),
        work.computed.at[stage].add(runs * computed),
    )
