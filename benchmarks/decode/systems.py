# SPDX-License-Identifier: Apache-2.0
"""Systems to time on equal work, their lines of results, and the table of these."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from benchmarks.results import Line
from benchmarks.task import Task, drawn_exits, figures
from benchmarks.timing import interleaved, rate
from dat_jax.decoding.sizing import Platform
from dat_jax.evaluation.tables import markdown_table
from dat_jax.exits.rules import Fixed

SHALLOW = 2
"""The depth of a cut, and the decoder blocks of shallow opponents."""


class System(NamedTuple):
    """A run to time, the tokens that it generates, and a description of its outcome."""

    name: str
    in_work: int
    tokens: int
    run: Callable[[], Any]
    describe: Callable[[Any], Line] = lambda _: {}


def ways(
    task: Task,
    beam: int,
    in_work: int,
    cuts: Sequence[int] = (SHALLOW,),
    averages: Sequence[float] = (1.75,),
    platform: Platform | None = None,
) -> Iterator[System]:
    """Yields the engine cut at some depths, at full depth, and with exits of some means.

    `platform` replaces the sizes of the device.
    """
    full = task.num_layers
    rules = [*(("cut", Fixed(depth)) for depth in cuts), ("full depth", Fixed(full))]
    for name, rule in [*rules, *(("exits", drawn_exits(mean, full)) for mean in averages)]:
        run = partial(task.search, rule, beam, in_work, platform)
        yield System(name, in_work, int(task.lengths.sum()), run, partial(figures, task, rule))


def measure(systems: Sequence[System], labels: Line, repetitions: int) -> list[Line]:
    """Times all systems in turn; returns the line of each, with `labels` of all."""
    timed = interleaved([system.run for system in systems], repetitions, labels["table"])
    return [
        {"benchmark": "decode", **labels, "system": system.name, "in_work": system.in_work}
        | rate(system.tokens, seconds)
        | system.describe(outcome)
        for system, (outcome, seconds) in zip(systems, timed, strict=True)
    ]


def format_lines(lines: Sequence[Line]) -> str:
    """Returns the tables of the lines: a row per system, columns per beam size.

    *ratio* is relative to full depth with the same beam size and sentences in work.
    """
    tables = dict.fromkeys(line["table"] for line in lines)
    return "\n\n".join(_format_table([x for x in lines if x["table"] == name]) for name in tables)


def _format_table(lines: Sequence[Line]) -> str:
    """Formats one table; the systems have the same order for all beam sizes."""
    beams = list(dict.fromkeys(line["beam_size"] for line in lines))
    columns = [[line for line in lines if line["beam_size"] == beam] for beam in beams]
    heads = [[f"beam {beam}: exit", "occupancy", "tokens/s", "ratio"] for beam in beams]
    full = {
        (line["beam_size"], line["in_work"]): line["tokens_per_second"]
        for line in lines
        if line["system"] == "full depth"
    }
    rows = [["system", "in work", *itertools.chain(*heads)]]
    for row in zip(*columns, strict=True):
        cells = [row[0]["system"], str(row[0]["in_work"])]
        for line in row:
            speed = line["tokens_per_second"]
            for key in ("average_exit", "occupancy"):
                cells.append(f"{line[key]:.2f}" if key in line else "")
            ratio = speed / full[line["beam_size"], line["in_work"]]
            cells += [f"{speed:,.0f}", f"{ratio:.2f}"]
        rows.append(cells)
    return markdown_table(rows)
