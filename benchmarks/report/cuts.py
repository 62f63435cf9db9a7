# SPDX-License-Identifier: Apache-2.0
"""Tables of BLEU that compare adaptive exits with cuts of the same model at equal cost.

A row holds the policies of a rule whose average exits round down to the same depth. Values are
means over the policies of a seed, then over seeds.
"""

import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from benchmarks.report import costs
from benchmarks.report.bootstrap import Draws
from benchmarks.report.gains import Row, cells_of_gains, draws_of
from benchmarks.results import Line, rule_of, select
from dat_jax.evaluation.tables import markdown_table

BySeed = Mapping[int, Sequence[Line]]
"""Lines of one training, by seed."""

_COUNTED = {"average exit": costs.average_exit, "MFLOPs/token": costs.megaflops}
_MEASURED = {"ms/token": costs.milliseconds}


def against_cuts(lines: Sequence[Line], split: str) -> str:
    """Returns BLEU of adaptive exits minus that of cuts at equal average exit and equal FLOPs."""
    return _against_cuts(select(lines, "split", split), _COUNTED)


def against_time(lines: Sequence[Line], batch_size: str) -> str:
    """Returns BLEU of adaptive exits minus that of cuts at equal average exit, FLOPs and time."""
    return _against_cuts(_timed(lines, batch_size), _COUNTED | _MEASURED)


def by_beam(lines: Sequence[Line], batch_size: str) -> str:
    """Returns BLEU of adaptive exits with each beam, minus that of cuts of equal time.

    The cuts decode with the same beam, or with whichever beam is best.
    """
    beams = sorted({line["beam_size"] for line in lines})
    of_beam = {x: _timed([y for y in lines if y["beam_size"] == x], batch_size) for x in beams}
    lines = [line for own in of_beam.values() for line in own]
    named = {"average exit": costs.average_exit} | _MEASURED
    columns = _columns_of_gains(lines)
    equal = [f"ms/token, {beam} beam" for beam in ("same", "any")]
    heading = ["beam", *_heading(named, equal, columns)]
    any_beam, _ = _by_depth(lines)
    bleu, rows = draws_of(lines), list[Row]()
    for beam, own in of_beam.items():
        same_beam, exits = _by_depth(own)
        opponents = [(cuts, costs.milliseconds) for cuts in (same_beam, any_beam)]
        compared = _compared(exits, named.values(), opponents, bleu, columns)
        rows += [[str(beam), *row] for row in compared]
    return markdown_table([heading, *rows])


def _timed(lines: Sequence[Line], batch_size: str) -> list[Line]:
    return select(select(lines, "batch_size", batch_size), "split", "test")


def _against_cuts(lines: Sequence[Line], named: Mapping[str, costs.Cost]) -> str:
    """Compares the policies of each rule with the best that cuts of the same model reach."""
    columns = _columns_of_gains(lines)
    cuts, exits = _by_depth(lines)
    opponents = [(cuts, cost) for cost in named.values()]
    rows = _compared(exits, named.values(), opponents, draws_of(lines), columns)
    return markdown_table([_heading(named, named, columns), *rows])


def _heading(shown: Collection[str], equal: Collection[str], columns: int) -> Row:
    """Returns the heading of the rows of `_compared`; `equal` names the cost of each opponent."""
    gains = [[f"minus cuts of equal {name}, 95 %", "by seed"][:columns] for name in equal]
    return ["training", "rule", "decodes", "BLEU", *shown, *itertools.chain(*gains)]


def _compared(
    exits: Mapping[tuple[str, str, int], BySeed],
    shown: Collection[costs.Cost],
    opponents: Sequence[tuple[Mapping[str, BySeed], costs.Cost]],
    bleu: Callable[[Line], Draws],
    columns: int,
) -> Iterator[Row]:
    """Yields a row for each rule and depth: its figures, and gains over cuts of an equal cost."""
    for (point, rule, _), group in exits.items():
        row = [point, rule, str(sum(map(len, group.values()))), *_means(group, shown)]
        for cuts, cost in opponents:
            row += _gains_over(group, cuts[point], cost, bleu)[:columns]
        yield row


def _by_depth(
    lines: Sequence[Line],
) -> tuple[Mapping[str, BySeed], Mapping[tuple[str, str, int], BySeed]]:
    """Returns the cuts of each training, and its adaptive exits by rule and depth.

    The depth of adaptive exits is their average exit rounded down.
    """
    cuts = defaultdict[str, dict[int, list[Line]]](lambda: defaultdict(list))
    exits = defaultdict[tuple[str, str, int], dict[int, list[Line]]](lambda: defaultdict(list))
    for line in lines:
        rule, point = rule_of(line), line["point"]
        place = cuts[point] if rule == "fixed" else exits[point, rule, int(line["average_exit"])]
        place[line["seed"]].append(line)
    return cuts, dict(sorted(exits.items()))


def _columns_of_gains(lines: Sequence[Line]) -> int:
    """Returns the number of columns of a difference: with several seeds, a second for them."""
    return min(2, len({line["seed"] for line in lines}))


def _means(group: BySeed, shown: Collection[costs.Cost]) -> Row:
    """Returns BLEU and some costs, means over seeds of the mean of each seed's lines."""

    def mean(value: costs.Cost) -> float:
        return statistics.mean(statistics.mean(map(value, own)) for own in group.values())

    return [f"{mean(lambda line: line['bleu']):.1f}", *(f"{mean(cost):.2f}" for cost in shown)]


def _gains_over(
    group: BySeed, cuts: BySeed, cost: costs.Cost, bleu: Callable[[Line], Draws]
) -> Row:
    """Returns the mean gain over cuts of equal cost with its interval, and that of each seed."""
    return cells_of_gains(
        {seed: [_gain(line, cuts[seed], cost, bleu) for line in own] for seed, own in group.items()}
    )


def _gain(
    line: Line, lines_of_cuts: Sequence[Line], cost: costs.Cost, bleu: Callable[[Line], Draws]
) -> Draws | None:
    """Returns BLEU minus that of the cuts at a line's cost; None if all of them cost more."""
    cuts = [costs.Cut(costs.draws_of_cost(cost, cut), bleu(cut)) for cut in lines_of_cuts]
    best = costs.best_within(costs.draws_of_cost(cost, line), cuts)
    if best[0] == -np.inf:
        return None
    cheapest = min(cuts, key=lambda cut: cut.cost[0])  # for draws in which all cost more
    return bleu(line) - np.where(best == -np.inf, cheapest.bleu, best)
