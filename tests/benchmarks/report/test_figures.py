# SPDX-License-Identifier: Apache-2.0
"""Figures of lines: their series and panels, and equal files for equal lines."""

from pathlib import Path

import pytest

from benchmarks.report import figures
from dat_jax.errors import UserError
from tests.benchmarks.report.lines import TABLE1, line

FIGURES = {
    "quality": ["one model, cut", "models of fewer blocks", "confidence", "average exit"],
    "beams": ["beam 1, one model, cut", "beam 1, confidence", "ms/token, measured, batches of 32"],
    "positions": ["confidence, average exit 1.2"],
    "scores": ["confidence, average exit 1.2", "probability of the reference"],
    "ablation": ["lambda", "sigma 0", "sigma 2"],
}


@pytest.mark.parametrize(("kind", "texts"), FIGURES.items())
def test_figures_name_their_series_and_equal_lines_give_equal_files(
    kind: str, texts: list[str], tmp_path: Path
):
    taught = [{"lambda": x, "sigma": sigma} for x in (0.1, 0.2) for sigma in (0.0, 2.0)]
    lines = [
        line(f"head_{n}", "token_geometric:0.5", 0.88, seed, average_exit=1.5, split="valid", **x)
        for n, x in enumerate(taught)
        for seed in (0, 1)
    ]
    if kind != "ablation":  # seed 0 is drawn, though others are nearer to 2
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


def test_each_model_and_seed_is_a_series(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, _: drawn.append(figure))
    figures.quality(TABLE1, tmp_path / "a.svg")
    lines = drawn[0].axes[0].lines
    assert sorted(len(x.get_xdata()) for x in lines) == [1, 1, 1, 2, 2]
    assert [x.get_label() for x in lines if not x.get_label().startswith("_")] == [
        "models of fewer blocks",
        "one model, cut",
        "uniform exits",
    ]


def test_each_beam_is_a_series(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, _: drawn.append(figure))
    figures.beams([*TABLE1[2:3], *(x | {"beam_size": 3} for x in TABLE1[::2])], tmp_path / "a.svg")
    (axis,) = drawn[0].axes
    assert [line.get_color() for line in axis.lines] == ["C0", "C1", "C1", "C1"]
    assert [name.get_text() for name in axis.get_legend().get_texts()] == [
        "beam 1, one model, cut",
        "beam 3, models of fewer blocks",
        "beam 3, one model, cut",  # of two seeds
    ]


def test_time_has_a_panel_for_each_batch_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, _: drawn.append(figure))
    times = [x | {"timed_sentences": 9, "batch_size": size} for x in TABLE1 for size in (1, 32)]
    for lines in (TABLE1, times):
        figures.quality(lines, tmp_path / "a.svg")
    labels = [[axis.get_xlabel() for axis in figure.axes] for figure in drawn]
    assert labels == [
        ["average exit", "MFLOPs/token (decoder)"],
        ["average exit", "MFLOPs/token (decoder)"]
        + [f"ms/token, measured, batches of {size}" for size in (32, 1)],
    ]
    points = [[len(x.get_xdata()) for x in axis.lines] for axis in drawn[1].axes]
    assert [sum(sizes) for sizes in points] == [len(TABLE1)] * 4


@pytest.mark.parametrize("kind", ["positions", "scores"])
def test_lines_without_positions_are_refused(kind: str, tmp_path: Path):
    tuned = line("aligned", "confidence:0.5", 0.88)
    del tuned["exit_by_position"], tuned["exit_by_score"]
    with pytest.raises(UserError, match="is of a tuned rule, with exits by position"):
        figures.FIGURES[kind]([*TABLE1, tuned], tmp_path / "a.svg")
