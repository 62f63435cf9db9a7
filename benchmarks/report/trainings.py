# SPDX-License-Identifier: Apache-2.0
"""Tables of BLEU that compare trainings with each other and with the paper's numbers."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence

from benchmarks.report import paper
from benchmarks.report.gains import Row, cells_of_gains, draws_of
from benchmarks.results import Line, select
from dat_jax.evaluation.tables import markdown_table

Group = dict[int, Line]
"""The lines of one training and policy, by seed."""


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


def differences(lines: Sequence[Line], split: str) -> str:
    """Returns the difference in BLEU of each training from its opponent, for the same seeds.

    The opponent of aligned training is the baseline of as many blocks; that of any other training
    is aligned training.
    """
    lines = select(lines, "split", split)
    groups, depths, bleu = _by_policy(lines), _depths_of(lines), draws_of(lines)
    rows = [["training", "against", "exit", "BLEU", "difference, 95 %", "by seed"]]
    for name in _points_of(lines):
        for exit_name in (*map(str, depths), "uniform"):
            policy = "uniform:0" if exit_name == "uniform" else f"fixed:{exit_name}"
            other = f"baseline_{exit_name}" if name == "aligned" else "aligned"
            mine, theirs = groups[name, policy], groups[other, policy]
            mine = {seed: line for seed, line in mine.items() if seed in theirs}
            if mine and not name.startswith("baseline_"):
                gains = {s: [bleu(line) - bleu(theirs[s])] for s, line in mine.items()}
                rows.append(
                    [name, other, exit_name, _mean_and_deviation(mine), *cells_of_gains(gains)]
                )
    return markdown_table(rows)


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
