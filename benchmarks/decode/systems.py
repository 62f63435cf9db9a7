# SPDX-License-Identifier: Apache-2.0
"""Systems that benchmarks of decoding time, each writing the same tokens, and lines of results."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.task import Task, figures
from benchmarks.timing import interleaved, rate
from dat_jax.evaluation.tables import markdown_table
from dat_jax.exits.questions import Rule


class System(NamedTuple):
    """One thing to time: the tokens that a run writes, and what is known of its outcome."""

    labels: dict[str, Any]
    tokens: int
    run: Callable[[], Any]
    describe: Callable[[Any], dict[str, Any]]


def engine(task: Task, name: str, rule: Rule, beam: int, in_work: int) -> System:
    """The engine with this number of sentences in work."""
    return System(
        {"system": name, "beam_size": beam, "in_work": in_work},
        int(task.lengths.sum()),
        lambda: task.search(rule, beam_size=beam, batch_size=in_work),
        lambda result: figures(task, rule, result),
    )


def measure(systems: list[System], labels: dict[str, Any], repetitions: int) -> list[dict]:
    """A line for each system: what it did, and its speed in turn with the others."""
    timed = interleaved([system.run for system in systems], repetitions, labels["table"])
    return [
        {"benchmark": "decode"}
        | labels
        | system.labels
        | rate(system.tokens, seconds)
        | system.describe(outcome)
        for system, (outcome, seconds) in zip(systems, timed, strict=True)
    ]


def format_lines(lines: list[dict[str, Any]]) -> str:
    """A table for each table of the lines: a row for a system, columns for each beam.

    *ratio* is to full depth with the same beam and sentences in work.
    """
    return "\n\n".join(
        _format_table([line for line in lines if line["table"] == table])
        for table in dict.fromkeys(line["table"] for line in lines)
    )


def _format_table(lines: list[dict[str, Any]]) -> str:
    """One table; for all beams the systems come in the same order."""
    beams = dict.fromkeys(line["beam_size"] for line in lines)
    columns = [[line for line in lines if line["beam_size"] == beam] for beam in beams]
    heads = [[f"beam {beam}: exit", "occupancy", "tokens/s", "ratio"] for beam in beams]
    rows = [["system", "in work", *itertools.chain(*heads)]]
    for alike in zip(*columns, strict=True):
        cells = [_cells(line, lines) for line in alike]
        first = [alike[0]["system"], str(alike[0]["in_work"])]
        rows.append([*first, *itertools.chain(*cells)])
    return markdown_table(rows)


def _cells(line: dict[str, Any], lines: list[dict[str, Any]]) -> list[str]:
    """The cells of a row for one beam."""
    full = next(
        other["tokens_per_second"]
        for other in lines
        if other["system"] == "full depth"
        and all(other[key] == line[key] for key in ("beam_size", "in_work"))
    )
    known = [f"{line[key]:.2f}" if key in line else "" for key in ("average_exit", "occupancy")]
    speed = line["tokens_per_second"]
    return [*known, f"{speed:,.0f}", f"{speed / full:.2f}"]
