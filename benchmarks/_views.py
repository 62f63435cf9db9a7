# SPDX-License-Identifier: Apache-2.0
"""Tables of the lines of `benchmarks.reproduce`: figures beside the paper's, differences with the
intervals that sentences give them and the spread over seeds."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from benchmarks import _paper
from benchmarks._costs import Cost, average_exit, megaflops, milliseconds
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
    """BLEU of each training at exits by chance, at each exit, and in the mean, as table 1 has it,
    and from the first exit to the last; under it the paper's, which is of another text."""
    depth = depth_of(lines)
    heading = ["training", "uniform", *map(str, range(1, depth + 1)), "mean", "span"]
    trainings = [p for p in points_of(lines) if not p.startswith("baseline_")]
    rows: list[Row] = []
    for name in (["baseline"] if len(trainings) < len(points_of(lines)) else []) + trainings:
        points = [f"baseline_{n}" if name == "baseline" else name for n in range(1, depth + 1)]
        fixed = [pick(lines, split, point, f"fixed:{n}") for n, point in enumerate(points, 1)]
        by_chance = pick(lines, split, name, "uniform:0")
        known = [group.bleu for group in fixed if group]
        ends = _mean_and_span(known) if all(fixed) else ["", ""]
        cells = [group.shown if group else "" for group in (by_chance, *fixed)]
        if known:
            rows.append([name, *cells, *ends])
        rows += _paper_row(name, split, depth)
    return markdown_table([heading, *rows])


def _paper_row(name: str, split: str, depth: int) -> Iterator[Row]:
    """The paper's row for a training, if it has one."""
    row = _paper.BLEU.get(split, {}).get(name)
    if row and len(row) == depth + 1:
        cells = ["" if value is None else f"{value:.1f}" for value in row]
        yield [f"{name}, paper", *cells, *_mean_and_span([v for v in row[1:] if v])]


def _mean_and_span(bleu: Sequence[float]) -> Row:
    """The mean over exits, and the difference between the last and the first."""
    return [f"{statistics.mean(bleu):.1f}", f"{bleu[-1] - bleu[0]:+.1f}"]


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
    """Exits that adapt beside cuts of the same model at equal average exit and at equal FLOPs: the
    straight line between the two fixed exits around it."""
    costs = {"average exit": average_exit, "MFLOPs/token": megaflops}
    return _beside_cuts([x for x in lines if x["split"] == split], costs)


def against_time(lines: Sequence[Line], batch_size: str) -> str:
    """Exits that adapt beside cuts of the same model at equal average exit and at equal measured
    time, in batches of one size."""
    costs = {"average exit": average_exit, "ms/token": milliseconds}
    return _beside_cuts([x for x in lines if x["batch_size"] == int(batch_size)], costs)


def _beside_cuts(lines: Sequence[Line], costs: dict[str, Cost]) -> str:
    """A row for each rule and each depth, of the thresholds whose average exit is from there up to
    the next: the means over thresholds and seeds, and the mean difference from cuts."""
    heading = ["training", "rule", "thresholds", "seeds", "BLEU", *costs]
    for name in costs:
        heading += [f"beside cuts of equal {name}, 95 %", "by seed"]
    groups: dict[tuple[str, str, int], list[Line]] = {}
    for line in lines:
        rule = line["policy"].partition(":")[0]
        if rule != "fixed":
            groups.setdefault((line["point"], rule, int(line["average_exit"])), []).append(line)
    rows = list[Row]()
    for (point, rule, _), group in sorted(groups.items()):
        means = [statistics.mean(x["bleu"] for x in group)]
        means += [statistics.mean(map(cost, group)) for cost in costs.values()]
        seeds = len({line["seed"] for line in group})
        row = [point, rule.replace("_", " "), str(len(group)), str(seeds), f"{means[0]:.1f}"]
        row += [f"{mean:.2f}" for mean in means[1:]]
        for cost in costs.values():
            row += _gains(group, lines, cost)
        rows.append(row)
    return markdown_table([heading, *rows])


def _gains(group: Sequence[Line], lines: Sequence[Line], cost: Cost) -> tuple[str, str]:
    """The mean difference from cuts of equal cost, and that of each seed; nothing of lines that are
    beyond the cheapest or the dearest cut."""
    known = [(line, found) for line in group if (found := _contrast(line, lines, cost))]
    if not known:
        return "", ""
    gain = _mean_contrast([found for _, found in known])
    each = [
        _mean_contrast([found for line, found in known if line["seed"] == seed]).value
        for seed in sorted({line["seed"] for line, _ in known})
    ]
    return f"{gain.value:+.2f} {shown_ends(gain)}", " ".join(f"{value:+.1f}" for value in each)


def _contrast(line: Line, lines: Sequence[Line], cost: Cost) -> list[tuple[Line, float]] | None:
    """Lines with weights that come to the difference from the straight line between the two cuts
    around a cost, if there are two."""
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
    return [(line, 1.0), (below, share - 1), (above, -share)]


def _mean_contrast(contrasts: Sequence[Sequence[tuple[Line, float]]]) -> Interval:
    """The mean of several."""
    weighted = [part for contrast in contrasts for part in contrast]
    systems = [unpack(line["bleu_counts"]) for line, _ in weighted]
    return difference(systems, [weight / len(contrasts) for _, weight in weighted])


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
