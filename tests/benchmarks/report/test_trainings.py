# SPDX-License-Identifier: Apache-2.0
"""Tables of trainings: their rows and cells."""

import re

import numpy as np

from benchmarks.report.trainings import by_exit, differences
from tests.benchmarks.report.lines import TABLE1, cells, line


def test_by_exit_has_a_row_for_each_training_and_the_mean_over_seeds():
    heading, _, *rows = cells(by_exit(TABLE1, "test"))
    assert heading == ["training", "seeds", "uniform", "1", "2", "mean", "span"]
    baseline, aligned, mixed = rows
    scores = [TABLE1[n]["bleu"] for n in (0, 1)]
    assert aligned[:2] == ["aligned", "1 to 2"]
    assert aligned[3] == f"{np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f}"
    assert aligned[2:5:2] == [f"{TABLE1[n]['bleu']:.1f}" for n in (3, 2)]
    # Seed 1 lacks an exit.
    assert aligned[5] == f"{np.mean([scores[0], TABLE1[2]['bleu']]):.1f}"
    assert aligned[6] == f"{TABLE1[2]['bleu'] - scores[0]:+.1f}"
    assert baseline[:4] == ["baseline", "1", "", f"{TABLE1[4]['bleu']:.1f}"]
    assert mixed == ["mixed_1", "1", "", "", f"{TABLE1[6]['bleu']:.1f}", "", ""]


def test_the_papers_row_follows_ours_if_depths_are_equal():
    six = [line("aligned", f"fixed:{n}", 0.8, exit_histogram={"6": 1}) for n in range(1, 7)]
    _, _, ours, paper = cells(by_exit(six, "test"))
    assert ours[0] == "aligned"
    assert paper == [
        "aligned, paper",
        "",
        "34.4",
        "33.2",
        "34.4",
        "34.8",
        "34.9",
        "35.0",
        "34.9",
        "34.5",
        "+1.7",
    ]


def test_differences_are_from_the_baseline_of_equal_depth_or_from_aligned():
    _, _, *rows = cells(differences(TABLE1, "test"))
    assert [row[:4] for row in rows] == [
        ["aligned", "baseline_1", "1", f"{TABLE1[0]['bleu']:.1f}"],  # seed 1 has no opponent
        ["aligned", "baseline_2", "2", f"{TABLE1[2]['bleu']:.1f}"],
        ["mixed_1", "aligned", "2", f"{TABLE1[6]['bleu']:.1f}"],
    ]
    assert rows[0][4].startswith(f"{TABLE1[0]['bleu'] - TABLE1[4]['bleu']:+.2f} [")
    assert rows[1][4:] == ["+0.00 [+0.00, +0.00]", "0: +0.0"]
    value, low, high = map(float, re.findall(r"[+-][\d.]+", rows[2][4]))
    assert low < value < high < 0


def test_trainings_without_a_common_seed_are_not_compared():
    lines = [line("aligned", "fixed:1", 0.8), line("baseline_1", "fixed:1", 0.8, seed=1)]
    assert len(cells(differences(lines, "test"))) == 2


def test_several_seeds_are_compared_seed_by_seed():
    lines = [
        line(point, "fixed:1", share, seed)
        for seed, (mine, theirs) in enumerate([(0.8, 0.7), (0.9, 0.85)])
        for point, share in (("aligned", mine), ("baseline_1", theirs))
    ]
    _, _, row = cells(differences(lines, "test"))
    each = [lines[n]["bleu"] - lines[n + 1]["bleu"] for n in (0, 2)]
    assert row[3].startswith(f"{np.mean([lines[n]['bleu'] for n in (0, 2)]):.1f} ± ")
    assert row[4].startswith(f"{np.mean(each):+.2f} [")
    assert row[5] == ", ".join(f"{seed}: {value:+.1f}" for seed, value in enumerate(each))
