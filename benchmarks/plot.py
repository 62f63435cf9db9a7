# SPDX-License-Identifier: Apache-2.0
"""Draws results: `python -m benchmarks.plot results/FILE.jsonl results/FILE.svg`.

BLEU against average exit, and against FLOPs per token, which count copies, exit predictors and
classifiers too. Needs the extra `plots`.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

Cost = Callable[[dict[str, Any]], float]

_COSTS: dict[str, Cost] = {
    "average exit": lambda summary: summary["average_exit"],
    "MFLOPs per token (decoder)": lambda summary: summary["flops_per_token"] / 1e6,
}
_STYLES = {
    "fixed": ("fixed exit", "o-"),
    "uniform": ("uniform at random", "x"),
    "sequence_multinomial": ("sequence multinomial", "v-"),
    "token_multinomial": ("token multinomial", "^-"),
    "token_geometric": ("token geometric", "s-"),
    "confidence": ("confidence", "D-"),
}

_TIMES: dict[str, Cost] = {
    "milliseconds per token, measured": lambda line: 1e3 / line["tokens_per_second"],
    "average exit": lambda line: line["average_exit"],
}
_PANELS = {
    "averages": ("average_exit", "average exit, equal lengths"),
    "lengths": ("average_exit", "average exit, lengths that vary"),
    "batches": ("batch_size", "batch size"),
}
_FAMILIES = {
    "cut": ("one model, cut", "o-"),
    "shallow": ("trained shallow", "^-"),
    "token_geometric": ("token geometric", "s-"),
    "confidence": ("confidence", "D-"),
}


def draw(summaries: list[dict[str, Any]], path: Path) -> None:
    """Draws one line for each kind of rule, a point for each summary."""
    kinds = [summary["policy"].partition(":")[0] for summary in summaries]
    _draw_bleu(summaries, kinds, _STYLES, _COSTS, path)


def draw_quality_against_time(lines: list[dict[str, Any]], path: Path) -> None:
    """Draws the lines of `benchmarks.quality`: BLEU against measured time, and average exit."""
    _draw_bleu(lines, [line["family"] for line in lines], _FAMILIES, _TIMES, path)


def draw_speed(lines: list[dict[str, Any]], path: Path) -> None:
    """Draws the lines of `benchmarks.decode`: a row for each beam, a panel for each table."""
    pyplot = _pyplot()
    beams = sorted({line["beam_size"] for line in lines})
    systems = dict.fromkeys(line["system"] for line in lines)
    colours = {system: f"C{number}" for number, system in enumerate(systems)}
    tables = {line["table"] for line in lines}
    panels = {table: panel for table, panel in _PANELS.items() if table in tables}
    size = (6 * len(panels), 5 * len(beams))
    figure, axes = pyplot.subplots(
        len(beams), len(panels), figsize=size, squeeze=False, layout="constrained"
    )
    for row, beam in zip(axes, beams, strict=True):
        for axis, (table, (key, label)) in zip(row, panels.items(), strict=True):
            series = defaultdict(list)
            for line in lines:
                if line["table"] == table and line["beam_size"] == beam and key in line:
                    series[line["system"]].append((line[key], line["tokens_per_second"]))
            for system, points in series.items():
                xs, ys = zip(*sorted(points), strict=True)
                axis.plot(xs, ys, "o-", color=colours[system], label=system, ms=4)
            axis.set_xlabel(label)
            axis.set_ylabel(f"tokens/s, beam {beam}")
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            axis.legend(fontsize="x-small")
            if key == "batch_size":
                axis.set_xscale("log", base=2)
    figure.savefig(path, metadata={"Date": None})


def _pyplot() -> Any:
    """Matplotlib, which draws the same file for the same data."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "dat_jax"
    return pyplot


def _draw_bleu(
    points: list[dict[str, Any]],
    keys: list[str],
    styles: dict[str, tuple[str, str]],
    costs: dict[str, Cost],
    path: Path,
) -> None:
    """Draws BLEU against each cost, in a panel of its own, one line for the points of each key."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, (label, cost) in zip(axes, costs.items(), strict=True):
        for wanted, (name, style) in styles.items():
            pairs = zip(points, keys, strict=True)
            series = sorted((point for point, key in pairs if key == wanted), key=cost)
            if series:
                bleu = [point["bleu"] for point in series]
                axis.plot([cost(point) for point in series], bleu, style, label=name, ms=5)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"BLEU, beam {points[0]['beam_size']}")
    axes[0].legend()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text("utf-8").splitlines()
    draw([json.loads(line) for line in lines], Path(sys.argv[2]))
