# SPDX-License-Identifier: Apache-2.0
"""Tables and figures of lines: what stands in them, and what is refused."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bleu_counts import pack, unpack
from benchmarks.report import __main__ as report
from benchmarks.report import figures, pages, views
from benchmarks.report.bootstrap import bleu
from benchmarks.reproduce.exits import by_position
from dat_jax import decoding
from dat_jax.decoding.translator import Translation
from dat_jax.errors import UserError
from dat_jax.evaluation.provenance import hash_engine
from tests.scripts.calls import refuse, succeed

GENERATOR = np.random.default_rng(0)
LENGTHS = GENERATOR.integers(5, 20, 50)
LUCK = GENERATOR.random((50, 20))


def counts_of(share: float) -> np.ndarray:
    """Counts of a system that has so many of the n-grams right, more or less by the sentence."""
    rows = []
    for length, luck in zip(LENGTHS, LUCK, strict=True):
        right = luck[:length] < share
        grams = [np.lib.stride_tricks.sliding_window_view(right, n).all(-1) for n in range(1, 5)]
        rows.append([*(g.sum() for g in grams), *(len(g) for g in grams), length, length])
    return np.array(rows, np.int32)


def line(point: str, policy: str, share: float, seed: int = 0, **others: Any) -> dict[str, Any]:
    """A line of a suite."""
    counts, exits = counts_of(share), others.get("average_exit", 1.0)
    return {
        "benchmark": "reproduce",
        "suite": "table1",
        "point": point,
        "policy": policy,
        "seed": seed,
        "split": "test",
        "bleu": bleu(counts.sum(axis=0)),
        "bleu_counts": pack(counts),
        "average_exit": exits,
        "exit_histogram": {"1": 5, "2": 5},
        "flops_per_token": 1e6 * exits,
        "tokens_per_second": 1e4 / exits,
        "beam_size": 1,
        "batch_size": 32,
        "exit_by_position": [exits] * 10,
        "exit_by_score": [[1] * 10, [2] * 10],
    } | others


TABLE1 = [
    line("aligned", "fixed:1", 0.80),
    line("aligned", "fixed:1", 0.82, seed=1),
    line("aligned", "fixed:2", 0.90, average_exit=2.0),
    line("aligned", "uniform:0", 0.84, average_exit=1.5),
    line("baseline_1", "fixed:1", 0.85),
    line("baseline_2", "fixed:2", 0.90, average_exit=2.0),
    line("mixed_1", "fixed:2", 0.70, average_exit=2.0),
]


def cells(table: str) -> list[list[str]]:
    return [[c.strip() for c in row.strip("|").split("|")] for row in table.splitlines()]


def test_by_exit_has_a_row_for_each_training_and_the_mean_over_seeds():
    heading, _, *rows = cells(views.by_exit(TABLE1, "test"))
    assert heading == ["training", "seeds", "uniform", "1", "2", "mean", "span"]
    baseline, aligned, mixed = rows
    scores = [TABLE1[n]["bleu"] for n in (0, 1)]
    assert aligned[:2] == ["aligned", "1 to 2"]
    assert aligned[3] == f"{np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f}"
    assert aligned[2:5:2] == [f"{TABLE1[n]['bleu']:.1f}" for n in (3, 2)]
    # Seed 1 has not all exits.
    assert aligned[5] == f"{np.mean([scores[0], TABLE1[2]['bleu']]):.1f}"
    assert aligned[6] == f"{TABLE1[2]['bleu'] - scores[0]:+.1f}"
    assert baseline[:4] == ["baseline", "1", "", f"{TABLE1[4]['bleu']:.1f}"]
    assert mixed == ["mixed_1", "1", "", "", f"{TABLE1[6]['bleu']:.1f}", "", ""]


def test_the_papers_row_stands_under_ours_where_depths_are_the_same():
    six = [line("aligned", f"fixed:{n}", 0.8, exit_histogram={"6": 1}) for n in range(1, 7)]
    _, _, ours, paper = cells(views.by_exit(six, "test"))
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


def test_differences_are_from_the_baseline_of_as_many_blocks_or_from_aligned():
    _, _, *rows = cells(views.differences(TABLE1, "test"))
    assert [row[:4] for row in rows] == [
        ["aligned", "baseline_1", "1", f"{TABLE1[0]['bleu']:.1f}"],  # seed 1 has no opponent
        ["aligned", "baseline_2", "2", f"{TABLE1[2]['bleu']:.1f}"],
        ["mixed_1", "aligned", "2", f"{TABLE1[6]['bleu']:.1f}"],
    ]
    assert rows[0][4].startswith(f"{TABLE1[0]['bleu'] - TABLE1[4]['bleu']:+.2f} [")
    assert rows[1][4:] == ["+0.00 [+0.00, +0.00]", "0: +0.0"]
    value, low, high = map(float, re.findall(r"[+-][\d.]+", rows[2][4]))
    assert low < value < high < 0


def test_trainings_without_a_seed_in_common_are_not_compared():
    lines = [line("aligned", "fixed:1", 0.8), line("baseline_1", "fixed:1", 0.8, seed=1)]
    assert len(cells(views.differences(lines, "test"))) == 2


def test_several_seeds_are_compared_seed_by_seed():
    lines = [
        line(point, "fixed:1", share, seed)
        for seed, (mine, theirs) in enumerate([(0.8, 0.7), (0.9, 0.85)])
        for point, share in (("aligned", mine), ("baseline_1", theirs))
    ]
    _, _, row = cells(views.differences(lines, "test"))
    each = [lines[n]["bleu"] - lines[n + 1]["bleu"] for n in (0, 2)]
    assert row[3].startswith(f"{np.mean([lines[n]['bleu'] for n in (0, 2)]):.1f} ± ")
    assert row[4].startswith(f"{np.mean(each):+.2f} [")
    assert row[5] == ", ".join(f"{seed}: {value:+.1f}" for seed, value in enumerate(each))


def gain_of(adaptive: dict[str, Any], cheap: dict[str, Any], dear: dict[str, Any]) -> float:
    """The difference from the straight line between two cuts, at exits 1 and 2."""
    share = adaptive["average_exit"] - 1
    return adaptive["bleu"] - ((1 - share) * cheap["bleu"] + share * dear["bleu"])


def test_exits_that_adapt_are_compared_with_the_line_between_two_cuts():
    cuts = TABLE1[0], TABLE1[2]
    adaptive = line("aligned", "confidence:0.5", 0.88, average_exit=1.25)
    heading, _, row = cells(views.against_cuts([*cuts, adaptive], "test"))
    assert heading[2:6] == ["decodes", "BLEU", "average exit", "MFLOPs/token"]
    assert row[:3] == ["aligned", "confidence", "1"]
    for of_cost in (row[6:8], row[8:]):
        assert of_cost[0].startswith(f"{gain_of(adaptive, *cuts):+.2f} [")
        assert of_cost[1] == f"0: {gain_of(adaptive, *cuts):+.1f}"


def test_thresholds_of_one_depth_are_a_row_over_all_seeds():
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
    _, _, row, other = cells(views.against_cuts(lines, "test"))
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


def test_no_difference_is_of_a_part_of_a_row():
    cuts = [line("aligned", f"fixed:{n}", 0.8, average_exit=float(n)) for n in (1, 2)]
    adaptive = [line("aligned", "confidence:0.5", 0.9, seed, average_exit=1.5) for seed in (0, 1)]
    _, _, row = cells(views.against_cuts([*cuts, *adaptive], "test"))
    assert row[2:4] == ["2", f"{adaptive[0]['bleu']:.1f}"] and row[6:] == [""] * 4
    # Cheaper than all cuts, as nothing else can be.
    cheap = line("aligned", "confidence:0.5", 0.9, average_exit=1.5, flops_per_token=1.0)
    _, _, row = cells(views.against_cuts([*cuts, cheap], "test"))
    assert row[6] != "" and row[8:] == ["", ""]


def test_what_costs_more_than_the_deepest_cut_is_compared_with_it():
    cuts = TABLE1[0], TABLE1[2]
    slow = line("aligned", "confidence:0.5", 0.88, average_exit=1.25, tokens_per_second=1e3)
    _, _, row = cells(views.against_time([*cuts, slow], "32"))
    assert row[-2].startswith(f"{slow['bleu'] - TABLE1[2]['bleu']:+.2f} [")


def test_no_cut_is_an_opponent_that_a_deeper_one_is_as_fast_as():
    speeds = {1: 900, 2: 400, 3: 500, 4: 300}
    cuts = [
        line("aligned", f"fixed:{n}", 0.7 + n / 20, average_exit=float(n), tokens_per_second=speed)
        for n, speed in speeds.items()
    ]
    adaptive = line("aligned", "confidence:0.5", 0.88, average_exit=2.5, tokens_per_second=450)
    _, _, row = cells(views.against_time([*cuts, adaptive], "32"))
    share = (1 / 450 - 1 / 500) / (1 / 300 - 1 / 500)
    expected = (1 - share) * cuts[2]["bleu"] + share * cuts[3]["bleu"]
    assert row[-2].startswith(f"{adaptive['bleu'] - expected:+.2f} [")


def test_a_cut_that_mixtures_of_others_exceed_is_no_opponent():
    scores = {1: 0.75, 2: 0.76, 3: 0.9}
    cuts = [line("aligned", f"fixed:{n}", x, average_exit=float(n)) for n, x in scores.items()]
    adaptive = line("aligned", "confidence:0.5", 0.8, average_exit=2.0)
    _, _, row = cells(views.against_cuts([*cuts, adaptive], "test"))
    gain = adaptive["bleu"] - (cuts[0]["bleu"] + cuts[2]["bleu"]) / 2
    assert gain < 0 < adaptive["bleu"] - cuts[1]["bleu"]
    assert all(cell.startswith(f"{gain:+.2f} [") for cell in (row[6], row[8]))


@pytest.mark.parametrize(
    "repeated",
    [
        {"repetitions": 3, "slowest": 300.0, "fastest": 800.0},
        {"repetitions": 4, "slowest": 300.0, "fastest": 800.0, "rates": [300.0, 800.0, 450, 450]},
    ],
    ids=["by order", "each"],
)
def test_the_noise_of_timings_is_in_intervals_of_time_alone(repeated: dict[str, Any]):
    cuts = [line("aligned", f"fixed:{n}", 0.7 + n / 10, average_exit=float(n)) for n in (1, 2)]
    cuts = [cut | {"tokens_per_second": 1e3 / cut["average_exit"]} for cut in cuts]
    adaptive = line("aligned", "confidence:0.5", 0.85, average_exit=1.5, tokens_per_second=450.0)
    noisy = adaptive | repeated
    widths = []
    for exits in (adaptive, noisy):
        _, _, row = cells(views.against_time([*cuts, exits], "32"))
        found = [list(map(float, re.findall(r"[+-][\d.]+", row[place]))) for place in (6, 8)]
        widths.append([high - low for _, low, high in found])
    (by_exit, by_time), (noisy_by_exit, noisy_by_time) = widths
    assert noisy_by_exit == by_exit
    assert noisy_by_time > 1.5 * by_time > 0


@pytest.mark.parametrize("view", views.VIEWS)
def test_lines_that_differ_in_what_no_table_shows_are_refused(view: str):
    argument = "32" if view == "against_time" else "test"
    other = TABLE1[0] | {"config_sha256": "another"}
    with pytest.raises(UserError, match="2 lines are of aligned, seed 0, test, fixed:1: leave"):
        views.VIEWS[view]([*TABLE1, other], argument)


def test_the_average_exit_of_each_tenth():
    one = Translation("", (), tuple(range(1, 21)), 0.0, 1)
    two = Translation("", (), (7, 7, 7, 7, 7), 0.0, 1)
    means = by_position([one, two])
    assert means[0] == (1 + 2 + 7) / 3
    assert means[1] == (3 + 4) / 2
    assert by_position([]) == [None] * 10


FIGURES = {
    "quality": ["one model, cut", "models of fewer blocks", "confidence", "average exit"],
    "positions": ["confidence, average exit 1.2"],
    "scores": ["confidence, average exit 1.2", "probability of the reference"],
    "ablation": ["lambda", "sigma 0", "sigma 2"],
}


@pytest.mark.parametrize(("kind", "texts"), FIGURES.items())
def test_figures_hold_what_there_is_and_are_drawn_alike(
    kind: str, texts: list[str], tmp_path: Path
):
    taught = [{"lambda": x, "sigma": sigma} for x in (0.1, 0.2) for sigma in (0.0, 2.0)]
    lines = [
        line(f"head_{n}", "token_geometric:0.5", 0.88, seed, average_exit=1.5, split="valid", **x)
        for n, x in enumerate(taught)
        for seed in (0, 1)
    ]
    if kind != "ablation":  # of several seeds the first is drawn, though others are nearer to 2
        exits = [(0, 1.2), (1, 1.9), (2, 1.7)]
        lines = [*TABLE1] + [
            line("aligned", "confidence:0.5", 0.88, seed, average_exit=x) for seed, x in exits
        ]
    paths = [tmp_path / name for name in ("one.svg", "two.svg")]
    for path in paths:
        figures.FIGURES[kind](lines, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    for text in texts:
        assert f"<!-- {text} -->" in paths[0].read_text()


def test_each_model_and_seed_is_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    drawn = []
    monkeypatch.setattr(figures, "_save", lambda figure, _: drawn.append(figure))
    figures.quality(TABLE1, tmp_path / "a.svg")
    lines = drawn[0].axes[0].lines
    assert sorted(len(x.get_xdata()) for x in lines) == [1, 1, 1, 2, 2]
    assert [x.get_label() for x in lines if not x.get_label().startswith("_")] == [
        "models of fewer blocks",
        "one model, cut",
        "exits by chance",
    ]


def test_time_has_a_panel_for_each_batch_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    drawn = []
    monkeypatch.setattr(figures, "_save", lambda figure, _: drawn.append(figure))
    times = [x | {"timed_sentences": 9, "batch_size": size} for x in TABLE1 for size in (1, 32)]
    for lines in (TABLE1, times):
        figures.quality(lines, tmp_path / "a.svg")
    labels = [[axis.get_xlabel() for axis in figure.axes] for figure in drawn]
    assert labels == [
        ["average exit", "MFLOPs/token (decoder)"],
        [f"ms/token, measured, batches of {size}" for size in (32, 1)],
    ]
    points = [[len(x.get_xdata()) for x in axis.lines] for axis in drawn[1].axes]
    assert [sum(sizes) for sizes in points] == [len(TABLE1)] * 2


def test_a_table_that_was_changed_by_hand_is_made_anew(tmp_path: Path):
    file = tmp_path / "lines.jsonl"
    file.write_text("".join(json.dumps(x) + "\n" for x in TABLE1))
    mark = f"<!-- table: {file} by_exit test -->\n"
    page = pages.renewed(f"Before.\n\n{mark}<!-- end -->\n\nAfter.\n")
    assert views.by_exit(TABLE1, "test") in page
    assert pages.renewed(page.replace("mixed_1", "mixed_7")) == page


def test_the_command_prints_a_table_and_draws_a_figure(tmp_path: Path):
    file, figure = tmp_path / "lines.jsonl", tmp_path / "figure.svg"
    file.write_text("".join(json.dumps(x) + "\n" for x in TABLE1))
    printed = succeed(report.main, f"--table={file} by_exit test").stdout
    assert printed == views.by_exit(TABLE1, "test") + "\n"
    succeed(report.main, f"--figure=quality {file}", f"--output={figure}")
    assert "<svg" in figure.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--table=no.jsonl by_exit test"],
            "'no.jsonl' is no file of results: measure it, or name another",
        ),
        (
            ["--figure=quality no.jsonl"],
            "--figure is 'quality no.jsonl' and --output is None: give both",
        ),
        (
            ["--figure=other no.jsonl", "--output=x.svg"],
            "figure 'other no.jsonl': must be KIND FILE",
        ),
        (["--table=FILE other test"], "other test': must be FILE VIEW SPLIT, as 'results"),
        (["--table=FILE by_exit"], "by_exit': must be FILE VIEW SPLIT, as"),
        (["--table=FILE by_exit tset"], "no line has the split 'tset': must be one of test"),
        (["--table=FILE against_time all"], "no line has the batch_size 'all': must be one of 32"),
        (["--table=EMPTY by_exit test"], "has no lines: measure it, or name another"),
        (["--table="], "'' is no file of results: measure it, or name another"),
        (["--figure=", "--output=x.svg"], "figure '': must be KIND FILE, as 'quality"),
        (["--figure=speed FILE", "--output=x.svg"], "name files of benchmarks.decode, of which"),
        (["--figure=scores FILE", "--output=x.svg"], "files is of a tuned rule: name a file"),
        (["--figure=ablation FILE", "--output=x.svg"], "no line has the split 'valid'"),
        (["--table=SCORES 3"], "SCORES 3': parts of the file are 1, 2: name some"),
        (["--table=SCORES x"], "SCORES x': parts of the file are 1, 2: name some"),
        (["--table=SPEED batch"], "SPEED batch': parts of the file are averages"),
    ],
)
def test_wrong_input_is_refused_in_one_line(arguments: list[str], message: str, tmp_path: Path):
    names = {
        "FILE": json.dumps(TABLE1[0]) + "\n",
        "EMPTY": "",
        "SCORES": '{"policy": "fixed:1"}\n{"policy": "fixed:2"}\n',
        "SPEED": '{"benchmark": "decode", "table": "averages"}\n',
    }
    for name, text in names.items():
        (tmp_path / name).write_text(text)
        arguments = [re.sub(rf"\b{name}\b", str(tmp_path / name), x) for x in arguments]
    refuse(message, report.main, *arguments)


def test_lines_of_another_engine_are_told(tmp_path: Path):
    engines = {"same": [hash_engine()] * 2, "other": [hash_engine(), "0" * 12], "older": [None] * 2}
    for name, values in engines.items():
        lines = [x | {"engine_sha256": e} for x, e in zip(TABLE1, values, strict=False)]
        lines = [{key: value for key, value in x.items() if value is not None} for x in lines]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    told = list(pages.warnings([f"{tmp_path / name}.jsonl by_exit test" for name in engines]))
    assert [line.partition(" lines are of another engine than ")[0] for line in told] == [
        f"{tmp_path / 'other.jsonl'}: 1 of 2",
        f"{tmp_path / 'older.jsonl'}: 2 of 2",
    ]
    result = succeed(report.main, f"--table={tmp_path / 'older.jsonl'} by_exit test")
    assert result.stderr == f"warning: {told[1]}\n"
    assert not succeed(report.main, f"--table={tmp_path / 'same.jsonl'} by_exit test").stderr


def test_the_checksum_of_the_engine_is_of_all_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = Path(decoding.__file__).parent
    copy = shutil.copytree(package, tmp_path / "decoding", ignore=lambda *_: ["__pycache__"])
    monkeypatch.setattr(decoding, "__file__", str(copy / "__init__.py"))
    uncached = hash_engine.__wrapped__
    assert uncached() == hash_engine()
    for name in ("engine.py", "beam.py"):
        before = uncached()
        (copy / name).write_text((copy / name).read_text() + "\n")
        assert uncached() != before
    assert re.fullmatch("[0-9a-f]{12}", hash_engine())


def test_counts_come_back_whole():
    np.testing.assert_array_equal(unpack(TABLE1[0]["bleu_counts"]), counts_of(0.80))
