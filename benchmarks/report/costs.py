# SPDX-License-Identifier: Apache-2.0
"""Costs of a line of results, and the best BLEU that cuts of a model reach within a cost."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.report.bootstrap import Draws, draws_of_median
from benchmarks.results import Line

Cost = Callable[[Line], float]


def average_exit(line: Line) -> float:
    """Returns the mean exit depth."""
    return line["average_exit"]


def megaflops(line: Line) -> float:
    """Returns the MFLOPs of the decoder per token."""
    return line["flops_per_token"] / 1e6


def milliseconds(line: Line) -> float:
    """Returns the measured time per token."""
    return 1e3 / line["tokens_per_second"]


def draws_of_cost(cost: Cost, line: Line) -> Draws:
    """Returns a line's cost and draws over its timing repetitions; counted costs do not vary."""
    # Older lines of three repetitions hold them as slowest, median and fastest.
    keys = ("slowest", "tokens_per_second", "fastest")
    in_order = [line[key] for key in keys if key in line and line.get("repetitions") == 3]
    rates = line.get("rates") or in_order or [line["tokens_per_second"]]
    keys = ("point", "seed", "policy", "shortlist", "batch_size")
    name = " ".join(str(line[key]) for key in keys)
    values = [cost(line | {"tokens_per_second": rate}) for rate in rates]
    return draws_of_median(values, line.get("processes", 1), name)


class Cut(NamedTuple):
    """A model cut at one depth."""

    cost: Draws
    bleu: Draws


def best_within(cost: Draws, cuts: Sequence[Cut]) -> Draws:
    """Returns the best BLEU of the cuts within this cost; -inf where all cost more.

    Two cuts may each decode part of a text, which gives the straight line between them. The best
    of all lines is the upper convex hull of the cuts.
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
