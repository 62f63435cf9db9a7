# SPDX-License-Identifier: Apache-2.0
"""The plot of quality against cost: every summary is on it, and equal data draw equal files."""

from pathlib import Path
from typing import Any

from benchmarks.plot import draw


def summary(policy: str, average_exit: float, bleu: float) -> dict[str, Any]:
    return {
        "policy": policy,
        "average_exit": average_exit,
        "bleu": bleu,
        "flops_per_token": average_exit * 1e6,
        "beam_size": 5,
    }


SUMMARIES = [
    summary("fixed:1", 1, 30.0),
    summary("fixed:2", 2, 31.0),
    summary("confidence:0.5,0.5", 1.5, 30.9),
    summary("token_geometric:0.5", 1.4, 30.7),
]


def test_each_kind_of_rule_has_its_line(tmp_path: Path):
    draw(SUMMARIES, tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text()
    for name in ("fixed exit", "confidence", "token geometric", "average exit", "BLEU, beam 5"):
        assert f"<!-- {name} -->" in text
    assert "<!-- uniform" not in text


def test_the_same_results_draw_the_same_file(tmp_path: Path):
    for name in ("one.svg", "two.svg"):
        draw(SUMMARIES, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
