# SPDX-License-Identifier: Apache-2.0
"""Exits by position in a sentence."""

from benchmarks.reproduce.exits import by_position
from dat_jax.decoding.translator import Translation


def test_the_average_exit_of_each_tenth():
    one = Translation("", (), tuple(range(1, 21)), 0.0, 1)
    two = Translation("", (), (7, 7, 7, 7, 7), 0.0, 1)
    means = by_position([one, two])
    assert means[0] == (1 + 2 + 7) / 3
    assert means[1] == (3 + 4) / 2
    assert by_position([]) == [None] * 10
