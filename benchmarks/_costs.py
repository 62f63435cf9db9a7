# SPDX-License-Identifier: Apache-2.0
"""Costs of a line, which its quality stands against in tables and in figures."""

from collections.abc import Callable

from benchmarks._lines import Line

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
