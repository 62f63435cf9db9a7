# SPDX-License-Identifier: Apache-2.0
"""Costs of a line, which its quality stands against in tables and in figures."""

from collections.abc import Callable

from benchmarks.report.bootstrap import Draws, draws_of_median
from benchmarks.results import Line

Cost = Callable[[Line], float]


def average_exit(line: Line) -> float:
    """The mean depth of its tokens' exits."""
    return line["average_exit"]


def megaflops(line: Line) -> float:
    """MFLOPs of the decoder for each token."""
    return line["flops_per_token"] / 1e6


def milliseconds(line: Line) -> float:
    """Measured time for each token."""
    return 1e3 / line["tokens_per_second"]


def draws_of_cost(cost: Cost, line: Line) -> Draws:
    """Returns the cost of a line, and in each draw that of some of its repetitions; what is counted
    is the same in all."""
    name = " ".join(str(line[key]) for key in ("point", "seed", "policy", "batch_size"))
    repeated = [cost(line | {"tokens_per_second": rate}) for rate in _rates(line)]
    return draws_of_median(repeated, name)


def _rates(line: Line) -> list[float]:
    """The tokens a second of each repetition; older lines, of three at most, have them by order."""
    known = [line[key] for key in ("slowest", "tokens_per_second", "fastest") if key in line]
    return line.get("rates", known if line.get("repetitions") == 3 else [line["tokens_per_second"]])
