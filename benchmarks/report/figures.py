# SPDX-License-Identifier: Apache-2.0
"""Figures of results, the same file for the same lines. They need the extra `plots`."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report.costs import average_exit, megaflops, milliseconds
from benchmarks.reproduce.exits import PARTS
from benchmarks.results import Line, lines_of
from dat_jax.errors import UserError

_FAMILIES = {
    "baseline": ("models of fewer blocks", "^--"),
    "fixed": ("one model, cut", "o-"),
    "uniform": ("exits by chance", "x"),
    "sequence_multinomial": ("sequence multinomial", "v"),
    "token_multinomial": ("token multinomial", "<"),
    "token_geometric": ("token geometric", "s-"),
    "confidence": ("confidence", "D-"),
}
_TUNED = ("token_geometric", "confidence")
_PANELS = {
    "averages": ("average_exit", "average exit, equal lengths"),
    "lengths": ("average_exit", "average exit, lengths that vary"),
    "works": ("in_work", "sentences in work"),
}


def quality(lines: Sequence[Line], path: Path) -> None:
    """Draws BLEU on `test` against average exit and FLOPs or, where it was measured in turn, time
    in batches of each size: a line for each model, or for the models of fewer blocks together, and
    each seed."""
    panels = [("average exit", average_exit, lines), ("MFLOPs/token (decoder)", megaflops, lines)]
    if all("timed_sentences" in line for line in lines):
        panels = [
            (
                f"ms/token, measured, batches of {size}",
                milliseconds,
                lines_of(lines, "batch_size", str(size)),
            )
            for size in sorted({line["batch_size"] for line in lines}, reverse=True)
        ]
    figure, (axes,) = _pyplot().subplots(
        1,
        len(panels),
        figsize=(5 * len(panels), 4),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (label, cost, shown) in zip(axes, panels, strict=True):
        series = _by_model(lines_of(shown, "split", "test"))
        for number, (family, (name, style)) in enumerate(_FAMILIES.items()):
            for n, points in enumerate(series[family].values()):
                across, up = zip(*sorted((cost(x), x["bleu"]) for x in points), strict=True)
                label_once = None if n else name
                axis.plot(across, up, style, color=f"C{number}", label=label_once, ms=5)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"BLEU, beam {lines[0]['beam_size']}")
    axes[0].legend(fontsize="small")
    _save(figure, path)


def _by_model(lines: Sequence[Line]) -> dict[str, dict[tuple[str, int], list[Line]]]:
    """The lines of each family, and in it of each model and seed."""
    series: dict[str, dict[tuple[str, int], list[Line]]] = {family: {} for family in _FAMILIES}
    for line in lines:
        family = _family(line)
        model = family if family == "baseline" else line["point"]
        series[family].setdefault((model, line["seed"]), []).append(line)
    return series


def _family(line: Line) -> str:
    """The series that a line is a point of."""
    if line["point"].startswith("baseline_"):
        return "baseline"
    return line["policy"].partition(":")[0]


def ablation(lines: Sequence[Line], path: Path) -> None:
    """Draws the average exit on `valid` against lambda, and BLEU against the average exit, a line
    for each sigma and seed."""
    series = defaultdict(list)
    for line in lines_of(lines, "split", "valid"):
        if "sigma" in line and not line["policy"].startswith("fixed:"):
            series[line["sigma"], line["seed"]].append(line)
    _check_any(series, "an exit head")
    figure, (left, right) = _pyplot().subplots(1, 2, figsize=(10, 4), layout="constrained")
    sigmas = sorted({sigma for sigma, _ in series})
    first = min(seed for _, seed in series)
    for (sigma, seed), points in sorted(series.items()):
        points = sorted(points, key=lambda line: line["lambda"])
        exits = [point["average_exit"] for point in points]
        look = {"color": f"C{sigmas.index(sigma)}", "ms": 5}
        look["label"] = f"sigma {sigma:g}" if seed == first else None
        left.plot([point["lambda"] for point in points], exits, "o-", **look)
        right.plot(exits, [point["bleu"] for point in points], "o-", **look)
    left.set(xlabel="lambda", ylabel="average exit")
    right.set(xlabel="average exit", ylabel="BLEU on valid")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    left.legend()
    _save(figure, path)


def positions(lines: Sequence[Line], path: Path) -> None:
    """Draws the average exit in each tenth of the translations, a line for each rule."""
    figure, axis = _pyplot().subplots(figsize=(6, 4), layout="constrained")
    for line in _chosen(lines):
        axis.plot(range(1, PARTS + 1), line["exit_by_position"], "o-", label=_name(line), ms=4)
    axis.set(xlabel="tenth of the translation", ylabel="average exit")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    _save(figure, path)


def scores(lines: Sequence[Line], path: Path) -> None:
    """Draws how many tokens have each exit and each tenth of probability, a panel for each rule."""
    chosen = [line for line in _chosen(lines) if line["exit_by_score"]]
    figure, axes = _pyplot().subplots(
        1, len(chosen), figsize=(4.5 * len(chosen), 3.5), squeeze=False, layout="constrained"
    )
    for axis, line in zip(axes[0], chosen, strict=True):
        counts = np.array(line["exit_by_score"])
        image = axis.imshow(
            counts / counts.sum(),
            origin="lower",
            aspect="auto",
            extent=(0, 1, 0.5, len(counts) + 0.5),
            cmap="viridis",
        )
        axis.set(xlabel="probability of the reference", ylabel="exit", title=_name(line))
        figure.colorbar(image, ax=axis, label="share of tokens")
    _save(figure, path)


def _chosen(lines: Sequence[Line]) -> list[Line]:
    """Of the tuned thresholds of each kind on `test` those that are nearest to average exits of 2
    and of 3; of one model, the first that has some, and its lowest seed."""
    tuned = [x for x in lines_of(lines, "split", "test") if x["policy"].partition(":")[0] in _TUNED]
    _check_any(tuned, "a tuned rule")
    own = [x for x in tuned if x["point"] == tuned[0]["point"]]
    own = [x for x in own if x["seed"] == min(x["seed"] for x in own)]
    chosen = []
    for kind in _TUNED:
        nearest = [
            min(of_kind, key=lambda line: abs(line["average_exit"] - wanted))
            for wanted in (2.0, 3.0)
            if (of_kind := [x for x in own if x["policy"].startswith(f"{kind}:")])
        ]
        chosen += [line for n, line in enumerate(nearest) if line not in nearest[:n]]
    return chosen


def _check_any(lines: Collection[Any], what: str) -> None:
    """Makes sure that there is something to draw.

    Raises:
        UserError: there is not.
    """
    if not lines:
        raise UserError(f"no line of the figure's files is of {what}: name a file that has some")


def _name(line: Line) -> str:
    """A rule, with its average exit."""
    kind = line["policy"].partition(":")[0].replace("_", " ")
    return f"{kind}, average exit {line['average_exit']:.1f}"


def speed(lines: Sequence[Line], path: Path) -> None:
    """Draws the lines of `benchmarks.decode`: a row for each beam, a panel for each table."""
    beams = sorted({line["beam_size"] for line in lines})
    systems = dict.fromkeys(line["system"] for line in lines)
    colours = {system: f"C{number}" for number, system in enumerate(systems)}
    tables = {line["table"] for line in lines}
    panels = {table: panel for table, panel in _PANELS.items() if table in tables}
    size = (6 * len(panels), 5 * len(beams))
    figure, axes = _pyplot().subplots(
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
            if key == "in_work":
                axis.set_xscale("log", base=2)
    _save(figure, path)


def check_drawing() -> None:
    """Makes sure that figures can be drawn.

    Raises:
        UserError: Matplotlib is not installed.
    """
    try:
        _pyplot()
    except ImportError:
        raise UserError("figures need matplotlib: pip install -e '.[plots]'") from None


def _pyplot() -> Any:
    """Matplotlib, which draws the same file for the same data."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "dat_jax"
    return pyplot


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    _pyplot().close(figure)


FIGURES: dict[str, Callable[[Sequence[Line], Path], None]] = {
    "quality": quality,
    "ablation": ablation,
    "positions": positions,
    "scores": scores,
    "speed": speed,
}
"""Of a name, what draws it into a file."""
