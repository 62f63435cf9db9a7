# SPDX-License-Identifier: Apache-2.0
"""Tables of the lines of `benchmarks.reproduce`: figures beside the paper's, differences with the
intervals that sentences and repetitions give them, and the spread over seeds."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.bleu_counts import unpack
from benchmarks.report import paper
from benchmarks.report.bootstrap import Draws, draws_of_bleu, interval
from benchmarks.report.costs import Cost, average_exit, draws_of_cost, megaflops, milliseconds
from benchmarks.report.cuts import Cut, best_within
from benchmarks.results import Line, lines_of
from dat_jax.evaluation.tables import markdown_table

Row = list[str]


class Group(NamedTuple):
    """The lines of one training and policy, one for each seed."""

    lines: list[Line]

    @property
    def bleu(self) -> float:
        """The mean over seeds."""
        return statistics.mean(line["bleu"] for line in self.lines)

    @property
    def shown(self) -> str:
        """BLEU, and its standard deviation over seeds if there are several."""
        if len(self.lines) == 1:
            return f"{self.bleu:.1f}"
        return f"{self.bleu:.1f} ± {statistics.stdev(line['bleu'] for line in self.lines):.1f}"


def pick(lines: Sequence[Line], point: str, policy: str) -> Group | None:
    """The lines of a training by a policy, by seed, if there are any."""
    wanted = {"point": point, "policy": policy}
    picked = [line for line in lines if wanted.items() <= line.items()]
    return Group(sorted(picked, key=lambda line: line["seed"])) if picked else None


def depth_of(lines: Sequence[Line]) -> int:
    """The depth of the models, N."""
    return max(int(depth) for line in lines for depth in line["exit_histogram"])


def points_of(lines: Sequence[Line]) -> list[str]:
    """The names of trainings, in the order of their lines."""
    return list(dict.fromkeys(line["point"] for line in lines))


def by_exit(lines: Sequence[Line], split: str) -> str:
    """BLEU of each training at exits by chance, at each exit, and in the mean, as table 1 has it,
    and from the first exit to the last, of the seeds that have all; under it the paper's, which is
    of another text."""
    lines = lines_of(lines, "split", split)
    depth = depth_of(lines)
    heading = ["training", "seeds", "uniform", *map(str, range(1, depth + 1)), "mean", "span"]
    trainings = [p for p in points_of(lines) if not p.startswith("baseline_")]
    rows: list[Row] = []
    for name in (["baseline"] if len(trainings) < len(points_of(lines)) else []) + trainings:
        points = [f"baseline_{n}" if name == "baseline" else name for n in range(1, depth + 1)]
        fixed = [pick(lines, point, f"fixed:{n}") for n, point in enumerate(points, 1)]
        groups = [pick(lines, name, "uniform:0"), *fixed]
        cells = [group.shown if group else "" for group in groups]
        if any(fixed):
            rows.append([name, _seeds_of(groups), *cells, *_ends_of(fixed)])
        rows += _paper_row(name, split, depth)
    return markdown_table([heading, *rows])


def _seeds_of(groups: Sequence[Group | None]) -> str:
    """The number of seeds of a row, or its range where cells differ."""
    counts = sorted({len(group.lines) for group in groups if group})
    return " to ".join(str(count) for count in dict.fromkeys([counts[0], counts[-1]]))


def _ends_of(fixed: Sequence[Group | None]) -> Row:
    """The mean over exits and the span, of the seeds that have all exits."""
    by_exit = [{x["seed"]: x["bleu"] for x in group.lines} if group else {} for group in fixed]
    seeds = set.intersection(*map(set, by_exit))
    if not seeds:
        return ["", ""]
    return _mean_and_span([statistics.mean(one[seed] for seed in seeds) for one in by_exit])


def _paper_row(name: str, split: str, depth: int) -> Iterator[Row]:
    """The paper's row for a training, if it has one."""
    row = paper.BLEU.get(split, {}).get(name)
    if row and len(row) == depth + 1:
        cells = ["" if value is None else f"{value:.1f}" for value in row]
        yield [f"{name}, paper", "", *cells, *_mean_and_span([v for v in row[1:] if v])]


def _mean_and_span(bleu: Sequence[float]) -> Row:
    """The mean over exits, and the difference between the last and the first."""
    return [f"{statistics.mean(bleu):.1f}", f"{bleu[-1] - bleu[0]:+.1f}"]


def differences(lines: Sequence[Line], split: str) -> str:
    """The difference in BLEU of each training from the one that it is to be compared with.

    Aligned training is compared with the baseline of as many blocks, all others with aligned, and
    of each the seeds that both have. The interval is of the sentences, drawn a thousand times, the
    spread is over seeds.
    """
    lines = lines_of(lines, "split", split)
    heading = ["training", "against", "exit", "BLEU", "difference, 95 %", "by seed"]
    depth, rows, bleu = depth_of(lines), list[Row](), _draws_of(lines)
    for name in points_of(lines):
        if name.startswith("baseline_"):
            continue
        for policy in [*(f"fixed:{n}" for n in range(1, depth + 1)), "uniform:0"]:
            other = _opponent(name, policy)
            one, against = (pick(lines, point, policy) for point in (name, other))
            pairs = _pairs(one, against) if one and against else []
            if pairs:
                rows.append(_difference_row(name, other, policy, pairs, bleu))
    return markdown_table([heading, *rows])


def _opponent(name: str, policy: str) -> str:
    """The training that another is compared with."""
    return f"baseline_{policy.partition(':')[2]}" if name == "aligned" else "aligned"


def _pairs(one: Group, other: Group) -> list[tuple[Line, Line]]:
    """The lines of two groups that are of the same seed."""
    theirs = {line["seed"]: line for line in other.lines}
    return [(line, theirs[line["seed"]]) for line in one.lines if line["seed"] in theirs]


def _difference_row(
    name: str,
    other: str,
    policy: str,
    pairs: Sequence[tuple[Line, Line]],
    bleu: Callable[[Line], Draws],
) -> Row:
    """The row of two trainings."""
    exit_name = policy.removeprefix("fixed:").replace("uniform:0", "by chance")
    mine = Group([line for line, _ in pairs])
    gains = [(line["seed"], bleu(line) - bleu(against)) for line, against in pairs]
    return [name, other, exit_name, mine.shown, *_gains(gains)]


def against_cuts(lines: Sequence[Line], split: str) -> str:
    """Adaptive exits minus cuts of the same model, at equal average exit and at equal FLOPs."""
    costs = {"average exit": average_exit, "MFLOPs/token": megaflops}
    return _against_cuts(lines_of(lines, "split", split), costs)


def against_time(lines: Sequence[Line], batch_size: str) -> str:
    """Adaptive exits minus cuts of the same model at equal average exit and at equal measured
    time, in batches of one size; of time the repetitions are drawn, too."""
    costs = {"average exit": average_exit, "ms/token": milliseconds}
    return _against_cuts(lines_of(lines, "batch_size", batch_size), costs)


def _against_cuts(lines: Sequence[Line], costs: dict[str, Cost]) -> str:
    """A row for each rule and each depth, of the decodes whose average exit is from there up to the
    next: means over each seed's and then over seeds, and the mean differences from the best that
    cuts reach at no more cost."""
    heading = ["training", "rule", "decodes", "BLEU", *costs]
    for name in costs:
        heading += [f"minus cuts of equal {name}, 95 %", "by seed"]
    bleu = _draws_of(lines)
    groups: dict[tuple[str, str, int], list[Line]] = {}
    for line in lines:
        rule = line["policy"].partition(":")[0]
        if rule != "fixed":
            groups.setdefault((line["point"], rule, int(line["average_exit"])), []).append(line)
    rows = list[Row]()
    for (point, rule, _), group in sorted(groups.items()):
        row = [point, rule.replace("_", " "), str(len(group))]
        row.append(f"{_mean_of_seeds(group, lambda line: line['bleu']):.1f}")
        row += [f"{_mean_of_seeds(group, cost):.2f}" for cost in costs.values()]
        for cost in costs.values():
            row += _gains([(line["seed"], _gain(line, lines, cost, bleu)) for line in group])
        rows.append(row)
    return markdown_table([heading, *rows])


def _mean_of_seeds(lines: Sequence[Line], value: Cost) -> float:
    """The mean over seeds of the mean of each seed's lines."""
    of_seed: dict[int, list[float]] = {}
    for line in lines:
        of_seed.setdefault(line["seed"], []).append(value(line))
    return statistics.mean(map(statistics.mean, of_seed.values()))


def _gain(
    line: Line, lines: Sequence[Line], cost: Cost, bleu: Callable[[Line], Draws]
) -> Draws | None:
    """The difference of a line from the cuts of its model at its cost; None if all cost more."""
    cuts = [
        Cut(draws_of_cost(cost, cut), bleu(cut))
        for cut in lines
        if cut["policy"].startswith("fixed:")
        and all(cut[key] == line[key] for key in ("point", "seed"))
    ]
    best = best_within(draws_of_cost(cost, line), cuts)
    if not cuts or best[0] == -np.inf:
        return None
    cheapest = min(cuts, key=lambda cut: cut.cost[0])  # of a draw in which all cost more
    return bleu(line) - np.where(best == -np.inf, cheapest.bleu, best)


def _draws_of(lines: Sequence[Line]) -> Callable[[Line], Draws]:
    """BLEU of each of these lines, on one text, in all draws."""
    draws = draws_of_bleu([unpack(line["bleu_counts"]) for line in lines])
    known = {_name(line): drawn for line, drawn in zip(lines, draws, strict=True)}
    return lambda line: known[_name(line)]


def _name(line: Line) -> tuple[str, int, str]:
    """What tells a line from the others of its table."""
    return line["point"], line["seed"], line["policy"]


def _gains(gains: Sequence[tuple[int, Draws | None]]) -> tuple[str, str]:
    """The mean of some differences, each seed's first, with its interval, and that of each seed;
    nothing if one of them is unknown."""
    by_seed: dict[int, list[Draws]] = {}
    for seed, gain in sorted(gains, key=lambda gain: gain[0]):
        if gain is None:
            return "", ""
        by_seed.setdefault(seed, []).append(gain)
    each = {seed: np.mean(own, axis=0) for seed, own in by_seed.items()}
    value, low, high = interval(np.mean(list(each.values()), axis=0))
    of_seeds = ", ".join(f"{seed}: {own[0]:+.1f}" for seed, own in each.items())
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]", of_seeds


VIEWS: dict[str, Callable[[Sequence[Line], str], str]] = {
    "by_exit": by_exit,
    "differences": differences,
    "against_cuts": against_cuts,
    "against_time": against_time,
}
"""Of a name, and of a split or a batch size, a table."""
