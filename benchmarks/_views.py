# SPDX-License-Identifier: Apache-2.0
"""Tables of the lines of `benchmarks.reproduce`: figures beside the paper's, differences with the
intervals that sentences give them and the spread over seeds."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from benchmarks import _paper
from benchmarks._lines import Line
from benchmarks._statistics import Interval, difference, unpack
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

    @property
    def seeds(self) -> list[int]:
        """The seeds."""
        return [line["seed"] for line in self.lines]


def pick(lines: Sequence[Line], split: str, point: str, policy: str) -> Group | None:
    """The lines of a training by a policy, by seed, if there are any."""
    wanted = {"split": split, "point": point, "policy": policy}
    picked = [line for line in lines if wanted.items() <= line.items()]
    return Group(sorted(picked, key=lambda line: line["seed"])) if picked else None


def depth_of(lines: Sequence[Line]) -> int:
    """The depth of the models, N."""
    return max(int(depth) for line in lines for depth in line["exit_histogram"])


def points_of(lines: Sequence[Line]) -> list[str]:
    """The names of trainings, in the order of their lines."""
    return list(dict.fromkeys(line["point"] for line in lines))


def by_exit(lines: Sequence[Line], split: str) -> str:
    """BLEU of each training at exits by chance, at each exit, and in the mean, as table 1 has it;
    under it the paper's, which is of another text."""
    depth = depth_of(lines)
    heading = ["training", "uniform", *map(str, range(1, depth + 1)), "mean"]
    trainings = [p for p in points_of(lines) if not p.startswith("baseline_")]
    rows: list[Row] = []
    for name in (["baseline"] if len(trainings) < len(points_of(lines)) else []) + trainings:
        points = [f"baseline_{n}" if name == "baseline" else name for n in range(1, depth + 1)]
        fixed = [pick(lines, split, point, f"fixed:{n}") for n, point in enumerate(points, 1)]
        by_chance = pick(lines, split, name, "uniform:0")
        known = [group.bleu for group in fixed if group]
        mean = f"{statistics.mean(known):.1f}" if known and all(fixed) else ""
        cells = [group.shown if group else "" for group in (by_chance, *fixed)]
        if known:
            rows.append([name, *cells, mean])
        rows += _paper_row(name, split, depth)
    return markdown_table([heading, *rows])


def _paper_row(name: str, split: str, depth: int) -> Iterator[Row]:
    """The paper's row for a training, if it has one."""
    row = _paper.BLEU.get(split, {}).get(name)
    if row and len(row) == depth + 1:
        cells = ["" if value is None else f"{value:.1f}" for value in row]
        yield [f"{name}, paper", *cells, f"{statistics.mean(v for v in row[1:] if v):.1f}"]


def differences(lines: Sequence[Line], split: str) -> str:
    """The difference in BLEU of each training from the one that it is to be compared with.

    Aligned training is compared with the baseline of as many blocks, all others with aligned. The
    interval is of the sentences, drawn a thousand times, the spread is over seeds.
    """
    heading = ["training", "against", "exit", "seeds", "BLEU", "difference", "95 %", "over seeds"]
    depth, rows = depth_of(lines), list[Row]()
    for name in points_of(lines):
        if name.startswith("baseline_"):
            continue
        for policy in [*(f"fixed:{n}" for n in range(1, depth + 1)), "uniform:0"]:
            other = _opponent(name, policy)
            one, against = (pick(lines, split, point, policy) for point in (name, other))
            if one and against:
                rows.append(_difference_row(name, other, policy, one, against))
    return markdown_table([heading, *rows])


def _opponent(name: str, policy: str) -> str:
    """The training that another is compared with."""
    return f"baseline_{policy.partition(':')[2]}" if name == "aligned" else "aligned"


def _difference_row(name: str, other: str, policy: str, one: Group, against: Group) -> Row:
    """The row of a pair, over the seeds that both have."""
    pairs = [
        (mine, theirs)
        for mine in one.lines
        for theirs in against.lines
        if mine["seed"] == theirs["seed"]
    ]
    interval = _mean_difference(pairs)
    each = [mine["bleu"] - theirs["bleu"] for mine, theirs in pairs]
    exit_name = policy.removeprefix("fixed:").replace("uniform:0", "by chance")
    return [
        *(name, other, exit_name, str(len(pairs)), f"{one.bleu:.1f}", f"{interval.value:+.2f}"),
        shown_ends(interval),
        " ".join(f"{value:+.1f}" for value in each),
    ]


def _mean_difference(pairs: Sequence[tuple[Line, Line]]) -> Interval:
    """The mean over pairs of their difference."""
    systems = [unpack(line["bleu_counts"]) for pair in pairs for line in pair]
    return difference(systems, [1 / len(pairs), -1 / len(pairs)] * len(pairs))


def against_cuts(lines: Sequence[Line], split: str) -> str:
    """Exits that adapt beside cuts of the same model at equal average exit: the straight line
    between the two fixed exits around it."""
    costs = {"average exit": lambda line: line["average_exit"]}
    return _beside_cuts([x for x in lines if x["split"] == split], costs)


def against_time(lines: Sequence[Line], batch_size: str) -> str:
    """Exits that adapt beside cuts of the same model at equal average exit and at equal measured
    time, in batches of one size."""
    costs = {
        "average exit": lambda line: line["average_exit"],
        "ms/token": lambda line: 1e3 / line["tokens_per_second"],
    }
    return _beside_cuts([x for x in lines if x["batch_size"] == int(batch_size)], costs)


def _beside_cuts(lines: Sequence[Line], costs: dict[str, Callable[[Line], float]]) -> str:
    """Each line with its costs and, if it adapts, its difference from the cuts at equal cost."""
    heading = ["training", "seed", "policy", "BLEU", "MFLOPs/token"]
    heading += [*costs, *(f"beside cuts of equal {name}, 95 %" for name in costs)]
    rows = list[Row]()
    for line in lines:
        cells = [line["point"], str(line["seed"]), line["policy"], f"{line['bleu']:.1f}"]
        cells += [f"{line['flops_per_token'] / 1e6:.2f}"]
        cells += [f"{cost(line):.2f}" for cost in costs.values()]
        for cost in costs.values():
            gain = None if line["policy"].startswith("fixed:") else _gain(line, lines, cost)
            cells.append(f"{gain.value:+.2f} {shown_ends(gain)}" if gain else "")
        rows.append(cells)
    return markdown_table([heading, *rows])


def _gain(line: Line, lines: Sequence[Line], cost: Callable[[Line], float]) -> Interval | None:
    """The difference from the straight line between the two cuts around a cost, if there are."""
    same = ("point", "seed", "split", "beam_size", "batch_size")
    cuts = [
        x
        for x in lines
        if x["policy"].startswith("fixed:") and all(x[key] == line[key] for key in same)
    ]
    below = max((x for x in cuts if cost(x) <= cost(line)), key=cost, default=None)
    above = min((x for x in cuts if cost(x) >= cost(line)), key=cost, default=None)
    if below is None or above is None:
        return None
    width = cost(above) - cost(below)
    share = (cost(line) - cost(below)) / width if width else 0.0
    systems = [unpack(x["bleu_counts"]) for x in (line, below, above)]
    return difference(systems, [1.0, share - 1, -share])


def shown_ends(interval: Interval) -> str:
    """The ends of an interval."""
    return f"[{interval.low:+.2f}, {interval.high:+.2f}]"


VIEWS: dict[str, Callable[[Sequence[Line], str], str]] = {
    "by_exit": by_exit,
    "differences": differences,
    "against_cuts": against_cuts,
    "against_time": against_time,
}
"""Of a name, and of a split or a batch size, a table."""
