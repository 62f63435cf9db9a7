# SPDX-License-Identifier: Apache-2.0
"""Tables of the lines of `benchmarks.reproduce`, with the paper's numbers.

Differences have a bootstrap interval over sentences and timing repetitions, and one value per seed.
"""

import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from benchmarks.bleu_counts import unpack
from benchmarks.report import costs, paper
from benchmarks.report.bootstrap import Draws, draws_of_bleu, interval
from benchmarks.results import Line, describe, rule_of, select
from dat_jax.evaluation.tables import markdown_table

Row = list[str]
Group = dict[int, Line]
"""The lines of one training and policy, by seed."""
BySeed = Mapping[int, Sequence[Line]]
"""Lines of one training, by seed."""


def by_exit(lines: Sequence[Line], split: str) -> str:
    """Returns BLEU at each exit and at random exits, as in the paper's table 1.

    The mean over exits and the span from the first exit to the last are of the seeds that have all
    exits. The paper's rows are of another text.
    """
    lines = select(lines, "split", split)
    groups, depths = _by_policy(lines), _depths_of(lines)
    heading = ["training", "seeds", "uniform", *map(str, depths), "mean", "span"]
    names = ["baseline" if x.startswith("baseline_") else x for x in _points_of(lines)]
    rows = list[Row]()
    for name in sorted(dict.fromkeys(names), key=lambda name: name != "baseline"):
        points = [f"baseline_{n}" if name == "baseline" else name for n in depths]
        fixed = [groups[point, f"fixed:{n}"] for n, point in enumerate(points, 1)]
        if any(fixed):
            cells = [groups[name, "uniform:0"], *fixed]
            counts = [len(group) for group in cells if group]
            seeds = " to ".join(dict.fromkeys(str(n) for n in (min(counts), max(counts))))
            common = set.intersection(*map(set, fixed))
            means = [statistics.mean(x[seed]["bleu"] for seed in common) for x in fixed if common]
            rows.append([name, seeds, *map(_mean_and_deviation, cells), *_mean_and_span(means)])
        rows += _paper_row(name, split, len(depths))
    return markdown_table([heading, *rows])


def _by_policy(lines: Sequence[Line]) -> defaultdict[tuple[str, str], Group]:
    """Groups lines by training and policy."""
    groups = defaultdict[tuple[str, str], Group](dict)
    for line in sorted(lines, key=lambda line: line["seed"]):
        groups[line["point"], line["policy"]][line["seed"]] = line
    return groups


def _depths_of(lines: Sequence[Line]) -> range:
    """Returns the depths of the models, 1 to N."""
    return range(1, 1 + max(int(depth) for line in lines for depth in line["exit_histogram"]))


def _points_of(lines: Sequence[Line]) -> list[str]:
    """Returns the names of trainings in the order of their lines."""
    return list(dict.fromkeys(line["point"] for line in lines))


def _mean_and_deviation(group: Group) -> str:
    """Returns BLEU, with its standard deviation if there are several seeds."""
    scores = [line["bleu"] for line in group.values()]
    deviation = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.1f}{deviation}" if scores else ""


def _paper_row(name: str, split: str, depth: int) -> Iterator[Row]:
    """Yields the paper's row for a training, if there is one of this depth."""
    row = paper.BLEU.get(split, {}).get(name, ())
    if len(row) == depth + 1:
        cells = ["" if value is None else f"{value:.1f}" for value in row]
        yield [f"{name}, paper", "", *cells, *_mean_and_span([v for v in row[1:] if v])]


def _mean_and_span(bleu: Sequence[float]) -> Row:
    """Returns the mean over exits, and the difference between the last and the first."""
    return [f"{statistics.mean(bleu):.1f}", f"{bleu[-1] - bleu[0]:+.1f}"] if bleu else ["", ""]


def differences(lines: Sequence[Line], split: str) -> str:
    """Returns the difference in BLEU of each training from its opponent, for the same seeds.

    The opponent of aligned training is the baseline of as many blocks; that of any other training
    is aligned training.
    """
    lines = select(lines, "split", split)
    groups, depths, bleu = _by_policy(lines), _depths_of(lines), _draws_of(lines)
    rows = [["training", "against", "exit", "BLEU", "difference, 95 %", "by seed"]]
    for name in _points_of(lines):
        for exit_name in (*map(str, depths), "uniform"):
            policy = "uniform:0" if exit_name == "uniform" else f"fixed:{exit_name}"
            other = f"baseline_{exit_name}" if name == "aligned" else "aligned"
            mine, theirs = groups[name, policy], groups[other, policy]
            mine = {seed: line for seed, line in mine.items() if seed in theirs}
            if mine and not name.startswith("baseline_"):
                gains = {s: [bleu(line) - bleu(theirs[s])] for s, line in mine.items()}
                rows.append([name, other, exit_name, _mean_and_deviation(mine), *_gains(gains)])
    return markdown_table(rows)


def against_cuts(lines: Sequence[Line], split: str) -> str:
    """Returns BLEU of adaptive exits minus that of cuts at equal average exit and equal FLOPs."""
    named = {"average exit": costs.average_exit, "MFLOPs/token": costs.megaflops}
    return _against_cuts(select(lines, "split", split), named)


def against_time(lines: Sequence[Line], batch_size: str) -> str:
    """Returns BLEU of adaptive exits minus that of cuts at equal average exit, FLOPs and time."""
    named = {"average exit": costs.average_exit, "MFLOPs/token": costs.megaflops}
    named["ms/token"] = costs.milliseconds
    return _against_cuts(_timed(lines, batch_size), named)


def _timed(lines: Sequence[Line], batch_size: str) -> list[Line]:
    return select(select(lines, "batch_size", batch_size), "split", "test")


def _against_cuts(lines: Sequence[Line], named: dict[str, costs.Cost]) -> str:
    """Compares the policies of each rule with the best that cuts of the same model reach.

    A row holds the policies whose average exits round down to the same depth. Values are means
    over the policies of a seed, then over seeds.
    """
    columns = _columns_of_gains(lines)
    heading = ["training", "rule", "decodes", "BLEU", *named]
    for name in named:
        heading += [f"minus cuts of equal {name}, 95 %", "by seed"][:columns]
    cuts, exits = _by_depth(lines)
    opponents = [(cuts, cost) for cost in named.values()]
    rows = _compared(exits, named.values(), opponents, _draws_of(lines), columns)
    return markdown_table([heading, *rows])


def by_beam(lines: Sequence[Line], batch_size: str) -> str:
    """Returns BLEU of adaptive exits with each beam, minus that of cuts of equal time.

    The cuts decode with the same beam, or with whichever beam is best.
    """
    beams = sorted({line["beam_size"] for line in lines})
    of_beam = {x: _timed([y for y in lines if y["beam_size"] == x], batch_size) for x in beams}
    lines = [line for own in of_beam.values() for line in own]
    named = {"average exit": costs.average_exit, "ms/token": costs.milliseconds}
    columns = _columns_of_gains(lines)
    heading = ["beam", "training", "rule", "decodes", "BLEU", *named]
    for beam in ("same", "any"):
        heading += [f"minus cuts of equal ms/token, {beam} beam, 95 %", "by seed"][:columns]
    any_beam, _ = _by_depth(lines)
    bleu, rows = _draws_of(lines), list[Row]()
    for beam, own in of_beam.items():
        same_beam, exits = _by_depth(own)
        opponents = [(cuts, costs.milliseconds) for cuts in (same_beam, any_beam)]
        compared = _compared(exits, named.values(), opponents, bleu, columns)
        rows += [[str(beam), *row] for row in compared]
    return markdown_table([heading, *rows])


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
    return _gains(
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


def _draws_of(lines: Sequence[Line]) -> Callable[[Line], Draws]:
    """Returns a function from a line to its BLEU, drawn together with all `lines`."""
    draws = draws_of_bleu([unpack(line["bleu_counts"]) for line in lines])
    known = {_name(line): drawn for line, drawn in zip(lines, draws, strict=True)}
    return lambda line: known[_name(line)]


def _name(line: Line) -> tuple[str, int, str, int]:
    return line["point"], line["seed"], describe(line), line["beam_size"]


def _gains(by_seed: Mapping[int, Sequence[Draws | None]]) -> Row:
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


VIEWS: dict[str, Callable[[Sequence[Line], str], str]] = {
    "by_exit": by_exit,
    "differences": differences,
    "against_cuts": against_cuts,
    "against_time": against_time,
    "by_beam": by_beam,
}
"""Tables by name; each takes lines and a split or a batch size."""
