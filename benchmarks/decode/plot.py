# SPDX-License-Identifier: Apache-2.0
"""The figure of the lines of `benchmarks.decode`."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.drawing import panels, save
from benchmarks.results import Line

_PANELS = {
    "averages": ("average_exit", "average exit, equal lengths"),
    "lengths": ("average_exit", "average exit, lengths that vary"),
    "works": ("in_work", "sentences in work"),
}


def speed(lines: Sequence[Line], path: Path) -> None:
    """Draws tokens per second: a row per beam size, a panel per table, a series per system."""
    beams = sorted({line["beam_size"] for line in lines})
    colours = {name: f"C{n}" for n, name in enumerate(dict.fromkeys(x["system"] for x in lines))}
    tables = [table for table in _PANELS if any(line["table"] == table for line in lines)]
    figure, axes = panels(len(tables), (6, 5), len(beams))
    for row, beam in zip(axes, beams, strict=True):
        for axis, table in zip(row, tables, strict=True):
            key, label = _PANELS[table]
            series = defaultdict(list)
            for line in lines:
                if line["table"] == table and line["beam_size"] == beam and key in line:
                    series[line["system"]].append((line[key], line["tokens_per_second"]))
            for system, points in series.items():
                xs, ys = zip(*sorted(points), strict=True)
                axis.plot(xs, ys, "o-", color=colours[system], label=system, ms=4)
            axis.set(xlabel=label, ylabel=f"tokens/s, beam {beam}")
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            axis.legend(fontsize="x-small")
            if key == "in_work":
                axis.set_xscale("log", base=2)
    save(figure, path)
