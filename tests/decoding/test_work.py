# SPDX-License-Identifier: Apache-2.0
"""Sums over what the engine did."""

import numpy as np

from dat_jax.decoding.work import Work, sum_work


def work_of(*rows: int) -> Work:
    """Work of which only the rows that needed blocks 1 to N and classifiers matter."""
    counts = np.asarray(rows)
    return Work(np.ones_like(counts), counts, 2 * counts)


def test_sums_are_of_each_count_and_do_not_overflow():
    many = work_of(2**30, 7, 2**30)
    found = sum_work(2, [many, many, many])
    assert [count.tolist() for count in found] == [
        [3, 3, 3],
        [3 * 2**30, 21, 3 * 2**30],
        [6 * 2**30, 42, 6 * 2**30],
    ]
    assert all(not count.any() for count in sum_work(2, []))
