# SPDX-License-Identifier: Apache-2.0
"""Tables of exits against cuts: their rows and cells."""

import re
from typing import Any

import numpy as np
import pytest

from benchmarks.report.cuts import against_cuts, against_time, by_beam
from tests.benchmarks.report.lines import TABLE1, cells, line


def gain_of(adaptive: dict[str, Any], cheap: dict[str, Any], dear: dict[str, Any]) -> float:
    """Returns the difference from the straight line between two cuts, at exits 1 and 2."""
    share = adaptive["average_exit"] - 1
    return adaptive["bleu"] - ((1 - share) * cheap["bleu"] + share * dear["bleu"])


def test_adaptive_exits_are_compared_with_the_line_between_two_cuts():
    cuts = TABLE1[0], TABLE1[2]
    adaptive = line("aligned", "confidence:0.5", 0.88, average_exit=1.25)
    heading, _, row = cells(against_cuts([*cuts, adaptive], "test"))
    assert heading[2:6] == ["decodes", "BLEU", "average exit", "MFLOPs/token"]
    assert row[:3] == ["aligned", "confidence", "1"]
    assert len(row) == len(heading) == 8  # without seeds: there is one
    for difference in row[6:]:
        assert difference.startswith(f"{gain_of(adaptive, *cuts):+.2f} [")


def test_all_thresholds_of_one_depth_and_all_seeds_share_a_row():
    cuts = [
        [line("aligned", f"fixed:{n}", share + seed / 50, seed, average_exit=float(n))
         for n, share in ((1, 0.8), (2, 0.9))]
        for seed in (0, 1)
    ]  # fmt: skip
    found = [(0, 1.25, 0.85), (0, 1.75, 0.93), (1, 1.5, 0.95)]
    adaptive = [
        line("aligned", f"confidence:{x}", share, seed, average_exit=x) for seed, x, share in found
    ]
    deeper = line("aligned", "confidence:0.9", 0.9, average_exit=2.0)
    lines = [*cuts[0], *cuts[1], *adaptive, deeper]
    _, _, row, other = cells(against_cuts(lines, "test"))
    gains = [gain_of(x, *cuts[x["seed"]]) for x in adaptive]
    by_seed = np.mean(gains[:2]), gains[2]
    assert row[2] == "3" and other[2] == "1"
    assert (
        row[3]
        == f"{np.mean([np.mean([x['bleu'] for x in adaptive[:2]]), adaptive[2]['bleu']]):.1f}"
    )
    assert row[4] == "1.50" and other[4] == "2.00"
    assert row[-2].startswith(f"{np.mean(by_seed):+.2f} [")
    assert row[-1] == ", ".join(f"{seed}: {value:+.1f}" for seed, value in enumerate(by_seed))


def test_a_row_with_an_unknown_difference_has_none():
    cuts = [line("aligned", f"fixed:{n}", 0.8, average_exit=float(n)) for n in (1, 2)]
    adaptive = [line("aligned", "confidence:0.5", 0.9, seed, average_exit=1.5) for seed in (0, 1)]
    _, _, row = cells(against_cuts([*cuts, *adaptive], "test"))
    assert row[2:4] == ["2", f"{adaptive[0]['bleu']:.1f}"] and row[6:] == [""] * 4
    # Cheaper than all cuts, which nothing else can be.
    cheap = line("aligned", "confidence:0.5", 0.9, average_exit=1.5, flops_per_token=1.0)
    _, _, row = cells(against_cuts([*cuts, cheap], "test"))
    assert row[6] != "" and row[7:] == [""]


def test_exits_that_cost_more_than_all_cuts_are_compared_with_the_best():
    cuts = TABLE1[0], TABLE1[2]
    slow = line("aligned", "confidence:0.5", 0.88, average_exit=1.25, tokens_per_second=1e3)
    _, _, row = cells(against_time([*cuts, slow], "32"))
    assert row[-1].startswith(f"{slow['bleu'] - TABLE1[2]['bleu']:+.2f} [")


def test_only_test_is_compared_by_time():
    both = [*TABLE1, *(x | {"split": "valid"} for x in TABLE1)]
    assert against_time(both, "32") == against_time(TABLE1, "32")


def test_exits_of_a_beam_are_compared_with_cuts_of_that_beam_and_of_any():
    wide = [line("aligned", f"fixed:{n}", share, average_exit=n, tokens_per_second=1e4 / n)
            for n, share in ((1, 0.8), (2, 0.9))]  # fmt: skip
    narrow = wide[1] | line("aligned", "fixed:2", 0.88, tokens_per_second=2e4, average_exit=2.0)
    wide = [x | {"beam_size": 5} for x in wide]
    exits = line("aligned", "confidence:0.5", 0.88, average_exit=1.5, beam_size=5)
    _, _, row = cells(by_beam([*wide, exits, narrow], "32"))
    assert row[0] == "5"
    own = np.mean([x["bleu"] for x in wide])  # halfway between their times
    both = (2 * wide[1]["bleu"] + narrow["bleu"]) / 3
    assert [float(cell.split()[0]) for cell in row[-2:]] == pytest.approx(
        [exits["bleu"] - own, exits["bleu"] - both], abs=0.01
    )


def test_a_cut_that_a_deeper_one_beats_in_time_is_no_opponent():
    speeds = {1: 900, 2: 400, 3: 500, 4: 300}
    cuts = [
        line("aligned", f"fixed:{n}", 0.7 + n / 20, average_exit=float(n), tokens_per_second=speed)
        for n, speed in speeds.items()
    ]
    adaptive = line("aligned", "confidence:0.5", 0.88, average_exit=2.5, tokens_per_second=450)
    _, _, row = cells(against_time([*cuts, adaptive], "32"))
    share = (1 / 450 - 1 / 500) / (1 / 300 - 1 / 500)
    expected = (1 - share) * cuts[2]["bleu"] + share * cuts[3]["bleu"]
    assert row[-1].startswith(f"{adaptive['bleu'] - expected:+.2f} [")


def test_a_cut_that_a_mixture_of_others_beats_is_no_opponent():
    scores = {1: 0.75, 2: 0.76, 3: 0.9}
    cuts = [line("aligned", f"fixed:{n}", x, average_exit=float(n)) for n, x in scores.items()]
    adaptive = line("aligned", "confidence:0.5", 0.8, average_exit=2.0)
    _, _, row = cells(against_cuts([*cuts, adaptive], "test"))
    gain = adaptive["bleu"] - (cuts[0]["bleu"] + cuts[2]["bleu"]) / 2
    assert gain < 0 < adaptive["bleu"] - cuts[1]["bleu"]
    assert all(cell.startswith(f"{gain:+.2f} [") for cell in row[6:])


@pytest.mark.parametrize(
    "repeated",
    [
        {"repetitions": 3, "slowest": 300.0, "fastest": 800.0},
        {"repetitions": 4, "slowest": 300.0, "fastest": 800.0, "rates": [300.0, 800.0, 450, 450]},
    ],
    ids=["by order", "each"],
)
def test_only_intervals_of_time_hold_the_noise_of_timings(repeated: dict[str, Any]):
    cuts = [line("aligned", f"fixed:{n}", 0.7 + n / 10, average_exit=float(n)) for n in (1, 2)]
    cuts = [cut | {"tokens_per_second": 1e3 / cut["average_exit"]} for cut in cuts]
    adaptive = line("aligned", "confidence:0.5", 0.85, average_exit=1.5, tokens_per_second=450.0)
    noisy = adaptive | repeated
    widths = []
    for exits in (adaptive, noisy):
        _, _, row = cells(against_time([*cuts, exits], "32"))
        found = [list(map(float, re.findall(r"[+-][\d.]+", row[place]))) for place in (7, 9)]
        widths.append([high - low for _, low, high in found])
    (by_exit, by_time), (noisy_by_exit, noisy_by_time) = widths
    assert noisy_by_exit == by_exit
    assert noisy_by_time > 1.5 * by_time > 0


def test_settings_have_rows_of_their_own():
    exits = line("aligned", "confidence:0.5", 0.85, average_exit=1.5)
    fast = [exits | {"shortlist": 16}, exits | {"shortlist": 16, "trailing_gap": 1.0}]
    table = against_cuts([TABLE1[0], TABLE1[2], exits, *fast], "test")
    rules = [row[1] for row in cells(table)[2:]]
    assert rules == ["confidence", "confidence, shortlist 16", "confidence, shortlist 16, gap 1"]
