# SPDX-License-Identifier: Apache-2.0
"""Differences in BLEU of lines of results, as cells of a table.

A difference has a bootstrap interval over sentences and timing repetitions, and one value per seed.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.bleu_counts import unpack
from benchmarks.report.bootstrap import Draws, draws_of_bleu, interval
from benchmarks.results import Line, describe

Row = list[str]


def draws_of(lines: Sequence[Line]) -> Callable[[Line], Draws]:
    """Returns a function from a line to its BLEU, drawn together with all `lines`."""
    draws = draws_of_bleu([unpack(line["bleu_counts"]) for line in lines])
    known = {_name(line): drawn for line, drawn in zip(lines, draws, strict=True)}
    return lambda line: known[_name(line)]


def cells_of_gains(by_seed: Mapping[int, Sequence[Draws | None]]) -> Row:
    """Returns the mean gain with its interval, and that of each seed; empty if one is unknown."""
    each = dict[int, Draws]()
    for seed, gains in sorted(by_seed.items()):
        known = [gain for gain in gains if gain is not None]
        if len(known) < len(gains):
            return ["", ""]
        each[seed] = np.mean(known, axis=0)
    value, low, high = interval(np.mean(list(each.values()), axis=0))
    of_seeds = ", ".join(f"{seed}: {own[0]:+.1f}" for seed, own in each.items())
    return [f"{value:+.2f} [{low:+.2f}, {high:+.2f}]", of_seeds]


def _name(line: Line) -> tuple[str, int, str, int]:
    return line["point"], line["seed"], describe(line), line["beam_size"]
