# SPDX-License-Identifier: Apache-2.0
"""Sums of the engine's counts of work."""

import numpy as np

from dat_jax.decoding.work import Work, describe, sum_work


def work_of(*rows: int) -> Work:
    """Work with these rows needed by blocks 1 to N and the classifiers, and twice as many run."""
    counts = np.asarray(rows)
    return Work(np.ones_like(counts), counts, 2 * counts)


def test_each_count_is_summed_without_overflow():
    many = work_of(2**30, 7, 2**30)
    found = sum_work(2, [many, many, many])
    assert [count.tolist() for count in found] == [
        [3, 3, 3],
        [3 * 2**30, 21, 3 * 2**30],
        [6 * 2**30, 42, 6 * 2**30],
    ]
    assert all(not count.any() for count in sum_work(2, []))


def test_idle_rows_count_as_executed_layers():
    """All of 3 blocks and the classifiers run twice as many rows as needed."""
    described = describe(work_of(8, 4, 2, 8), tokens=7)
    assert described["layers_executed_per_token"] == 2 * (8 + 4 + 2) / 7
    assert described["occupancy"] == 1 / 2
    assert described["rows_per_stage"] == [8, 4, 2, 8]
    assert describe(work_of(0, 0), tokens=0)["layers_executed_per_token"] == 0
