# SPDX-License-Identifier: Apache-2.0
"""What benchmarks of decoding time: systems that write so many tokens, and lines of that."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from benchmarks.engines import Task, continuously, drawn_exits, figures, in_lockstep
from benchmarks.measure import interleaved, rate
from dat_jax.config import ModelConfig
from dat_jax.decoding.schedule import choose_sizes, default_cohort
from dat_jax.exits.policies import Policy

_REFILLS = 16  # sentences for each row of a cohort


class System(NamedTuple):
    """One thing to time: how many tokens a run writes, and what is known of its outcome."""

    labels: dict[str, Any]
    tokens: int
    run: Callable[[], Any]
    describe: Callable[[Any], dict[str, Any]]


def model_config(
    sizes: Mapping[str, int], dtype: Literal["float32", "bfloat16"] = "float32"
) -> ModelConfig:
    """A post-norm model with an exit at each depth, encoder and decoder equally wide."""
    return ModelConfig(
        num_layers=sizes["num_layers"],
        encoder_layers=sizes["encoder_layers"],
        encoder_dim=sizes["dim"],
        encoder_ff_dim=sizes["ff_dim"],
        encoder_heads=sizes["heads"],
        decoder_dim=sizes["dim"],
        decoder_ff_dim=sizes["ff_dim"],
        decoder_heads=sizes["heads"],
        norm="post",
        exits="all",
        classifiers="shared",
        embeddings="untied",
        dropout=0.0,
        attention_dropout=0.0,
        dtype=dtype,
        exit_head="none",
        halting_weights="shared",
        halting_bias=0.0,
    )


def lockstep_system(task: Task, name: str, policy: Policy, beam: int, batch: int) -> System:
    """The lockstep engine, `batch` sentences at a time."""
    return System(
        {"system": name, "beam_size": beam, "batch_size": batch},
        int(task.lengths.sum()),
        in_lockstep(task, policy, beam, batch),
        lambda outcome: figures(task, policy, outcome),
    )


def continuous_system(task: Task, average_exit: float, beam: int, batch: int) -> System:
    """The continuous engine, of the sizes that it has for such a batch by default."""
    sentences = len(task.source)
    policy = drawn_exits(average_exit, task.model.config.num_layers)
    sizes = choose_sizes(sentences, beam, default_cohort(batch, beam), 0, sentences)
    return System(
        {"system": "continuous", "beam_size": beam, "batch_size": batch}
        | {"cohort_size": sizes.cohort, "pool_size": sizes.slots},
        int(task.lengths.sum()),
        continuously(task, policy, beam, sizes),
        lambda outcome: figures(task, policy, outcome),
    )


def refills(beam: int, batch: int) -> int:
    """How many sentences make filling and draining a pool hardly count."""
    return _REFILLS * -(-default_cohort(batch, beam) // beam)


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
    heads = [f"beam {beam}: exit | occupancy | tokens/s | ratio" for beam in beams]
    rows = [f"| system | batch | {' | '.join(heads)} |", "|---|--:|" + "--:|" * 4 * len(columns)]
    for alike in zip(*columns, strict=True):
        cells = [_cells(line, lines) for line in alike]
        rows.append(f"| {alike[0]['system']} | {alike[0]['batch_size']} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cells(line: dict[str, Any], lines: list[dict[str, Any]]) -> str:
    """What a row says of one beam."""
    full = next(
        other["tokens_per_second"]
        for other in lines
        if other["system"] == "lockstep, full depth"
        and all(other[key] == line[key] for key in ("beam_size", "batch_size"))
    )
    known = [f"{line[key]:.2f}" if key in line else "" for key in ("average_exit", "occupancy")]
    speed = line["tokens_per_second"]
    return " | ".join([*known, f"{speed:,.0f}", f"{speed / full:.2f}"])
