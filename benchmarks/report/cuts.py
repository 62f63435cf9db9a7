# SPDX-License-Identifier: Apache-2.0
"""The best BLEU that cuts of a model reach at no more than some cost."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.report.bootstrap import Draws


class Cut(NamedTuple):
    """A model that is cut at one depth."""

    cost: Draws
    bleu: Draws


def best_within(cost: Draws, cuts: Sequence[Cut]) -> Draws:
    """Returns the best BLEU that cuts reach at no more than this cost; -inf where all cost more.

    Part of a text may be decoded by one cut and the rest by another: that is a straight line
    between the two. The best of all lines is the upper convex hull of the cuts.
    """
    best = np.full(len(cost), -np.inf)
    for cheap in cuts:
        best = np.where(cheap.cost <= cost, np.maximum(best, cheap.bleu), best)
        for dear in cuts:
            between = (cheap.cost <= cost) & (cost < dear.cost)
            share = (cost - cheap.cost) / np.where(between, dear.cost - cheap.cost, 1)
            mixed = (1 - share) * cheap.bleu + share * dear.bleu
            best = np.where(between, np.maximum(best, mixed), best)
    return best
