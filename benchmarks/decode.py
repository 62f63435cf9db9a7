# SPDX-License-Identifier: Apache-2.0
"""How fast both engines decode, beside what one would use instead, on random weights of one size.

    python -m benchmarks.decode --output=results/decode.jsonl [--opponents] [--beams=1,4]

Two tables: at batches of several sizes, and at one batch for exits of several means, where the
lockstep engine is also cut at each depth. Exits are drawn and lengths forced, so all systems write
the same number of tokens. Repetitions are interleaved and figures are medians; a line of JSON for
each, a table and a plot beside the file. `--opponents` times CTranslate2 and Hugging Face's Marian
too (`pip install -e '.[opponents]'`), on a CPU.
"""

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from benchmarks.engines import (
    Task,
    continuously,
    drawn_exits,
    encode,
    figures,
    in_lockstep,
    make_task,
)
from benchmarks.measure import interleaved, machine, rate
from benchmarks.opponents import Size, ctranslate2_opponents, opponents
from dat_jax.command_line import run
from dat_jax.config import ModelConfig
from dat_jax.decoding.schedule import choose_sizes
from dat_jax.errors import UserError
from dat_jax.exits.policies import Fixed, Policy

_POOLED = 1_024  # sentences for the continuous engine, divided by the beam
_SEVERAL_AVERAGES = (1.25, 1.75, 3.0, 6.0)
_AVERAGE = 1.75
_BATCHES = (1, 8, 32, 128, 512)
_BATCH = 64
_SHALLOW = 2  # decoder blocks of the shallow opponents
_SIZES = {
    "dim": (512, "Width of encoder and decoder."),
    "ff_dim": (1024, "Width of the feed-forward layers."),
    "heads": (8, "Attention heads."),
    "num_layers": (6, "Decoder blocks."),
    "encoder_layers": (6, "Encoder blocks."),
    "vocabulary_size": (10_000, "Pieces."),
    "source_length": (28, "Pieces of each source."),
    "target_length": (32, "Pieces of each translation, EOS counted."),
}


class System(NamedTuple):
    """One thing to time: `work` tokens a run, and what is known of a run's outcome."""

    labels: dict[str, Any]
    tokens: int
    run: Callable[[], Any]
    describe: Callable[[Any], dict[str, Any]]


def model_config(options: flags.FlagValues) -> ModelConfig:
    """The model that all systems have, by the flags."""
    return ModelConfig(
        num_layers=options.num_layers,
        encoder_layers=options.encoder_layers,
        encoder_dim=options.dim,
        encoder_ff_dim=options.ff_dim,
        encoder_heads=options.heads,
        decoder_dim=options.dim,
        decoder_ff_dim=options.ff_dim,
        decoder_heads=options.heads,
        norm="post",
        exits="all",
        classifiers="shared",
        embeddings="untied",
        dropout=0.0,
        attention_dropout=0.0,
        dtype="float32",
        exit_head="none",
        halting_weights="shared",
        halting_bias=0.0,
    )


def lockstep_system(task: Task, name: str, policy: Policy, beam: int, batch: int) -> System:
    """The lockstep engine, on one batch."""
    task = task._replace(source=task.source[:batch])
    return System(
        {"system": name, "beam_size": beam, "batch_size": batch},
        task.target_length * batch,
        in_lockstep(task, policy, beam, batch),
        lambda outcome: figures(task, policy, outcome),
    )


def continuous_system(task: Task, average_exit: float, beam: int, batch: int) -> System:
    """The continuous engine, with cohorts as large as the batch, on many sentences."""
    sentences = max(_POOLED // beam, min(batch, len(task.source)))
    task = task._replace(source=task.source[:sentences])
    policy = drawn_exits(average_exit, task.model.config.num_layers)
    sizes = choose_sizes(sentences, beam, batch, 0, sentences)
    return System(
        {"system": "continuous", "beam_size": beam, "batch_size": batch}
        | {"cohort_size": sizes.cohort, "pool_size": sizes.slots},
        task.target_length * sentences,
        continuously(task, policy, beam, sizes),
        lambda outcome: figures(task, policy, outcome),
    )


def over_batches(task: Task, beam: int) -> Iterator[System]:
    """Both engines at batches of several sizes, for exits of one mean."""
    num_layers = task.model.config.num_layers
    for batch in _BATCHES:
        yield lockstep_system(task, "lockstep, full depth", Fixed(num_layers), beam, batch)
        masked = drawn_exits(_AVERAGE, num_layers)
        yield lockstep_system(task, "lockstep, masks", masked, beam, batch)
        yield continuous_system(task, _AVERAGE, beam, batch)


def over_averages(task: Task, beam: int) -> Iterator[System]:
    """Both engines at one batch, for exits of several means, beside cuts at each depth."""
    num_layers = task.model.config.num_layers
    yield System(
        {"system": "encoder alone", "beam_size": beam, "batch_size": _BATCH},
        task.target_length * _BATCH,
        encode(task, _BATCH),
        lambda _: {},
    )
    for depth in range(1, num_layers + 1):
        name = "lockstep, cut" if depth < num_layers else "lockstep, full depth"
        yield lockstep_system(task, name, Fixed(depth), beam, _BATCH)
    for average in _SEVERAL_AVERAGES:
        masked = drawn_exits(average, num_layers)
        yield lockstep_system(task, "lockstep, masks", masked, beam, _BATCH)
        yield continuous_system(task, average, beam, _BATCH)


def opponents_systems(task: Task, beam: int, folder: Path) -> Iterator[System]:
    """The systems of others at full depth, and CTranslate2 with a shallow decoder."""
    config, source = task.model.config, task.source[:_BATCH]
    threads = len(os.sched_getaffinity(0))
    size = Size(
        config.encoder_layers,
        config.num_layers,
        config.decoder_dim,
        config.decoder_ff_dim,
        config.decoder_heads,
        task.model.target_vocabulary_size,
    )
    others = opponents(size, folder / "deep", threads)
    shallow = dataclasses.replace(size, decoder_layers=_SHALLOW)
    others += ctranslate2_opponents(shallow, folder / "shallow", threads)
    for other in others:

        def run_other(translate: Callable[..., None] = other.translate) -> None:
            translate(source, task.target_length, beam)

        yield System(
            {"system": other.name, "beam_size": beam, "batch_size": _BATCH},
            task.target_length * _BATCH,
            run_other,
            lambda _, depth=other.decoder_layers: {"average_exit": float(depth)},
        )


def measure(systems: list[System], labels: dict[str, Any], repetitions: int) -> list[dict]:
    """A line for each system: what it did, and its speed in turn with the others."""
    names = [str(index) for index in range(len(systems))]
    outcomes: dict[str, Any] = {}

    def remembering(name: str, run_system: Callable[[], Any]) -> Callable[[], None]:
        def run_and_keep() -> None:
            outcomes[name] = run_system()

        return run_and_keep

    runs = {
        name: remembering(name, system.run) for name, system in zip(names, systems, strict=True)
    }
    seconds = interleaved(runs, repetitions, labels["table"])
    return [
        {"benchmark": "decode"}
        | labels
        | system.labels
        | rate(system.tokens, seconds[name])
        | system.describe(outcomes[name])
        for name, system in zip(names, systems, strict=True)
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


def main() -> None:
    """Measures, writes the lines, prints the table."""
    options = flags.FLAGS
    output = Path(options.output)
    if not output.parent.is_dir():
        raise UserError(f"{output.parent} is no folder: make it or name another --output")
    task = make_task(
        model_config(options),
        options.vocabulary_size,
        _POOLED,
        options.source_length,
        options.target_length,
    )
    sizes = {name: options[name].value for name in _SIZES}
    setting = machine() | {"dtype": task.model.config.dtype} | sizes
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for beam in map(int, options.beams):
            systems = list(over_averages(task, beam))
            if options.opponents:
                systems += opponents_systems(task, beam, Path(folder))
            tables = {"averages": systems, "batches": list(over_batches(task, beam))}
            for table in options.tables:
                chosen = tables[table]
                measured = measure(chosen, {"table": table}, options.repetitions)
                print(format_lines(measured), flush=True)
                lines += [line | setting for line in measured]
    output.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    for _name, (_size, _help) in _SIZES.items():
        flags.DEFINE_integer(_name, _size, _help, 1)
    flags.DEFINE_string("output", None, "A file of JSON lines to write.", required=True)
    flags.DEFINE_list("beams", ["1", "4"], "Beam sizes.")
    flags.DEFINE_list("tables", ["averages", "batches"], "Which of the tables to measure.")
    flags.DEFINE_integer("repetitions", 3, "Of each measurement.", 1)
    flags.DEFINE_bool("opponents", False, "Time the systems of others too.")
    run(main)
