# SPDX-License-Identifier: Apache-2.0
"""What benchmarks of decoding time: systems that write so many tokens, and lines of that."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from benchmarks.engines import Task, continuously, drawn_exits, figures, in_lockstep
from benchmarks.measure import interleaved, rate
from dat_jax.config import ModelConfig
from dat_jax.decoding.schedule import choose_sizes
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
    """The continuous engine, with cohorts of `batch` rows."""
    sentences = len(task.source)
    policy = drawn_exits(average_exit, task.model.config.num_layers)
    sizes = choose_sizes(sentences, beam, batch, 0, sentences)
    return System(
        {"system": "continuous", "beam_size": beam, "batch_size": batch}
        | {"cohort_size": sizes.cohort, "pool_size": sizes.slots},
        int(task.lengths.sum()),
        continuously(task, policy, beam, sizes),
        lambda outcome: figures(task, policy, outcome),
    )


def refills(beam: int, batch: int) -> int:
    """How many sentences make filling and draining a pool hardly count."""
    return _REFILLS * -(-batch // beam)


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
    """A table of lines, each beside the lockstep engine at full depth, same beam and batch."""
    rows = [
        "| system | beam | batch | average exit | occupancy | layers run/token | tokens/s | ratio |"
    ]
    rows.append("|---|--:|--:|--:|--:|--:|--:|--:|")
    for line in lines:
        alike = ("table", "beam_size", "batch_size")
        full = next(
            other["tokens_per_second"]
            for other in lines
            if other["system"] == "lockstep, full depth"
            and all(other[key] == line[key] for key in alike)
        )
        known = {
            key: form.format(line[key]) if key in line else ""
            for key, form in (
                ("average_exit", "{:.2f}"),
                ("occupancy", "{:.2f}"),
                ("layers_executed_per_token", "{:.2f}"),
            )
        }
        rows.append(
            f"| {line['system']} | {line['beam_size']} | {line['batch_size']} "
            f"| {' | '.join(known.values())} | {line['tokens_per_second']:,.0f} "
            f"| {line['tokens_per_second'] / full:.2f} |"
        )
    return "\n".join(rows)
