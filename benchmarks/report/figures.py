# SPDX-License-Identifier: Apache-2.0
"""Figures of the lines of `benchmarks.reproduce`."""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.decode.plot import speed
from benchmarks.drawing import panels, save
from benchmarks.report.costs import Cost, average_exit, megaflops, milliseconds
from benchmarks.results import Line, kind_of, rule_of, select
from dat_jax.errors import UserError

_STYLES = {
    "baseline": "^--",
    "fixed": "o-",
    "uniform": "x",
    "token_geometric": "s-",
    "confidence": "D-",
    "margin": "p-",
    "similarity": "*-",
    "patience": "h-",
    "schedule": ">-",
    "token_multinomial": "<",
    "sequence_multinomial": "v",
}
_NAMES = {
    "baseline": "models of fewer blocks",
    "fixed": "one model, cut",
    "uniform": "uniform exits",
}
_TUNED = ("token_geometric", "confidence")


def quality(lines: Sequence[Line], path: Path) -> None:
    """Draws BLEU on `test` against average exit, FLOPs and, if it was measured, time.

    A series is a model and seed; all models of fewer blocks form one. Time has a panel per batch
    size.
    """
    timed = []
    if all("timed_sentences" in line for line in lines):
        for size in sorted({line["batch_size"] for line in lines}, reverse=True):
            of_size = select(lines, "batch_size", str(size))
            timed.append((f"ms/token, measured, batches of {size}", milliseconds, of_size))
    once = timed[0][2] if timed else lines
    costs = [("average exit", average_exit, once), ("MFLOPs/token (decoder)", megaflops, once)]
    costs += timed
    rows = math.ceil(len(costs) / 3)
    figure, axes = panels(math.ceil(len(costs) / rows), (5, 4), rows, sharey=True)
    used, unused = np.split(axes.flatten(), [len(costs)])
    for axis in unused:
        axis.set_axis_off()
    for axis, (label, cost, shown) in zip(used, costs, strict=True):
        _plot(axis, select(shown, "split", "test"), cost)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    used[0].set_ylabel(f"BLEU, beam {lines[0]['beam_size']}")
    used[0].legend(fontsize="small")
    save(figure, path)


def beams(lines: Sequence[Line], path: Path) -> None:
    """Draws BLEU on `test` against measured time, a color per beam and a panel per batch size."""
    lines = [line for line in lines if line["split"] == "test"]
    batch_sizes = sorted({line["batch_size"] for line in lines}, reverse=True)
    beam_sizes = sorted({line["beam_size"] for line in lines})
    figure, (axes,) = panels(len(batch_sizes), (5, 4), sharey=True)
    for axis, batch_size in zip(axes, batch_sizes, strict=True):
        for n, beam in enumerate(beam_sizes):
            shown = [line for line in lines if line["beam_size"] == beam]
            shown = select(shown, "batch_size", str(batch_size))
            _plot(axis, shown, milliseconds, f"C{n}", f"beam {beam}, ")
        axis.set_xlabel(f"ms/token, measured, batches of {batch_size}")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("BLEU")
    axes[0].legend(fontsize="small")
    save(figure, path)


def _plot(axis: Any, lines: Sequence[Line], cost: Cost, color: str = "", prefix: str = "") -> None:
    """Plots BLEU against a cost, in one color or in one for each family; `prefix` starts labels."""
    for (family, name), models in _series(lines, cost).items():
        own = color or f"C{list(_STYLES).index(family)}"
        for n, points in enumerate(models.values()):
            look = {"color": own, "label": None if n else prefix + name, "ms": 5}
            axis.plot(*zip(*sorted(points), strict=True), _STYLES[family], **look)


def _series(
    lines: Sequence[Line], cost: Cost
) -> dict[tuple[str, str], dict[Any, list[tuple[float, float]]]]:
    """Returns cost and BLEU of each policy, by family and its name and then by model and seed."""
    series = defaultdict[tuple[str, str], Any](lambda: defaultdict(list))
    for line in lines:
        point, family = line["point"], kind_of(line)
        if point.startswith("baseline_"):
            point = family = "baseline"
        name = _NAMES.get(family, rule_of(line))
        series[family, name][point, line["seed"]].append((cost(line), line["bleu"]))
    order = list(_STYLES)
    return dict(sorted(series.items(), key=lambda item: order.index(item[0][0])))


def ablation(lines: Sequence[Line], path: Path) -> None:
    """Draws average exit on `valid` against lambda, and BLEU against average exit.

    A series is a sigma and seed.
    """
    series = defaultdict(list)
    for line in select(lines, "split", "valid"):
        if "sigma" in line and kind_of(line) != "fixed":
            point = line["lambda"], line["average_exit"], line["bleu"]
            series[line["sigma"], line["seed"]].append(point)
    _check_any(series, "an exit head")
    figure, ((left, right),) = panels(2, (5, 4))
    sigmas = sorted({sigma for sigma, _ in series})
    first = min(seed for _, seed in series)
    for (sigma, seed), points in sorted(series.items()):
        penalties, exits, bleu = zip(*sorted(points, key=lambda point: point[0]), strict=True)
        look = {"color": f"C{sigmas.index(sigma)}", "ms": 5}
        look["label"] = f"sigma {sigma:g}" if seed == first else None
        left.plot(penalties, exits, "o-", **look)
        right.plot(exits, bleu, "o-", **look)
    left.set(xlabel="lambda", ylabel="average exit")
    right.set(xlabel="average exit", ylabel="BLEU on valid")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    left.legend()
    save(figure, path)


def positions(lines: Sequence[Line], path: Path) -> None:
    """Draws the average exit in each tenth of the translations, a series per rule."""
    figure, ((axis,),) = panels(1, (6, 4))
    for line in _nearest(lines):
        exits = line["exit_by_position"]
        axis.plot(range(1, len(exits) + 1), exits, "o-", label=_name(line), ms=4)
    axis.set(xlabel="tenth of the translation", ylabel="average exit")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    save(figure, path)


def scores(lines: Sequence[Line], path: Path) -> None:
    """Draws the share of tokens at each exit and tenth of probability, a panel per rule."""
    chosen = [line for line in _nearest(lines) if line["exit_by_score"]]
    figure, (axes,) = panels(len(chosen), (4.5, 3.5))
    for axis, line in zip(axes, chosen, strict=True):
        counts = np.array(line["exit_by_score"])
        extent = (0, 1, 0.5, len(counts) + 0.5)
        shares = counts / counts.sum()
        image = axis.imshow(shares, "viridis", origin="lower", aspect="auto", extent=extent)
        axis.set(xlabel="probability of the reference", ylabel="exit", title=_name(line))
        figure.colorbar(image, ax=axis, label="share of tokens")
    save(figure, path)


def _nearest(lines: Sequence[Line]) -> list[Line]:
    """Returns the tuned thresholds on `test` nearest to average exits of 2 and 3, for each rule.

    All are of the first model that has tuned thresholds, and of its lowest seed.
    """
    tuned = [
        line
        for line in select(lines, "split", "test")
        if kind_of(line) in _TUNED and "exit_by_position" in line
    ]
    _check_any(tuned, "a tuned rule, with exits by position")
    tuned = [line for line in tuned if line["point"] == tuned[0]["point"]]
    first = min(line["seed"] for line in tuned)
    chosen = dict[str, Line]()
    for rule in _TUNED:
        own = [line for line in tuned if kind_of(line) == rule and line["seed"] == first]
        for wanted in (2.0, 3.0):
            for line in sorted(own, key=lambda line: abs(line["average_exit"] - wanted))[:1]:
                chosen[line["policy"]] = line
    return list(chosen.values())


def _check_any(lines: Collection[Any], what: str) -> None:
    if not lines:
        raise UserError(f"no line of the figure's files is of {what}: name a file that has some")


def _name(line: Line) -> str:
    return f"{rule_of(line)}, average exit {line['average_exit']:.1f}"


FIGURES: dict[str, Callable[[Sequence[Line], Path], None]] = {
    "quality": quality,
    "beams": beams,
    "ablation": ablation,
    "positions": positions,
    "scores": scores,
    "speed": speed,
}
"""Figures by name; each draws lines into a file. `speed` is of `benchmarks.decode`."""
