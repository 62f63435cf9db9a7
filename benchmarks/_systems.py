# SPDX-License-Identifier: Apache-2.0
"""Systems that benchmarks of decoding time, each writing so many tokens, and lines of results."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks._task import Task, drawn_exits, figures
from benchmarks._timing import interleaved, rate
from dat_jax.decoding.engines import SearchResult
from dat_jax.decoding.sizing import default_cohort, platform_of
from dat_jax.evaluation.tables import markdown_table
from dat_jax.exits.questions import Rule

_REFILLS = 16  # sentences for each row of a cohort


class System(NamedTuple):
    """One thing to time: how many tokens a run writes, and what is known of its outcome."""

    labels: dict[str, Any]
    tokens: int
    run: Callable[[], Any]
    describe: Callable[[Any], dict[str, Any]]


def lockstep_system(task: Task, name: str, rule: Rule, beam: int, batch: int) -> System:
    """The lockstep engine, `batch` sentences at a time."""
    return System(
        {"system": name, "beam_size": beam, "batch_size": batch},
        int(task.lengths.sum()),
        lambda: task.search(rule, engine="lockstep", beam_size=beam, batch_size=batch),
        lambda result: figures(task, rule, result),
    )


def continuous_system(task: Task, average_exit: float, beam: int, batch: int) -> System:
    """The continuous engine, of the sizes that it has for such a batch by default."""
    rule = drawn_exits(average_exit, task.num_layers)

    def describe(result: SearchResult) -> dict[str, Any]:
        (settings,) = result.settings
        sizes = {"cohort_size": settings.cohort, "pool_size": settings.slots}
        return sizes | figures(task, rule, result)

    return System(
        {"system": "continuous", "beam_size": beam, "batch_size": batch},
        int(task.lengths.sum()),
        lambda: task.search(rule, engine="continuous", beam_size=beam, batch_size=batch),
        describe,
    )


def refills(task: Task, beam: int, batch: int) -> int:
    """The number of sentences with which filling and draining a pool hardly count."""
    trained = task.model.trained
    decoding = dataclasses.replace(
        trained.config.decoding, beam_size=beam, batch_size=batch, cohort_size=0
    )
    cohort = default_cohort(decoding, platform_of(trained.device.platform))
    return _REFILLS * -(-cohort // beam)


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
    """A table for each table of the lines: a row for a system at a batch, columns for each beam.

    *ratio* is to lockstep at full depth with the same beam and batch.
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
    rows = [["system", "batch", *itertools.chain(*heads)]]
    for alike in zip(*columns, strict=True):
        cells = [_cells(line, lines) for line in alike]
        first = [alike[0]["system"], str(alike[0]["batch_size"])]
        rows.append([*first, *itertools.chain(*cells)])
    return markdown_table(rows)


def _cells(line: dict[str, Any], lines: list[dict[str, Any]]) -> list[str]:
    """The cells of a row for one beam."""
    full = next(
        other["tokens_per_second"]
        for other in lines
        if other["system"] == "lockstep, full depth"
        and all(other[key] == line[key] for key in ("beam_size", "batch_size"))
    )
    known = [f"{line[key]:.2f}" if key in line else "" for key in ("average_exit", "occupancy")]
    speed = line["tokens_per_second"]
    return [*known, f"{speed:,.0f}", f"{speed / full:.2f}"]
