# SPDX-License-Identifier: Apache-2.0
"""Speed of decoding by both engines, beside other systems, on random weights of one size.

    python -m benchmarks.decode --output=FILE [--opponents] [--beams=1,4] [--tables=averages]

Three tables: at batches of several sizes; at one batch for exits of several means, where the
lockstep engine is also cut at each depth; and the same with lengths that vary from half of the
target length to all of it. Exits are drawn and lengths forced: all systems do the same.

Repetitions are interleaved and figures are medians; a line of JSON for each, tables, and a plot
beside the file. `--opponents` times CTranslate2 and Hugging Face's Marian too, on a CPU
(`pip install -e '.[opponents]'`).
"""

import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import flags

from benchmarks._figures import check_drawing, speed
from benchmarks._opponents import Size, ctranslate2_opponents, opponents
from benchmarks._options import numbers, some
from benchmarks._systems import (
    System,
    continuous_system,
    format_lines,
    lockstep_system,
    measure,
    refills,
)
from benchmarks._task import Task, drawn_exits, encode, make_config, make_task, vary_lengths
from benchmarks._timing import check_output, machine, write_lines
from dat_jax.command_line import define_path, run
from dat_jax.exits.rules import Fixed

_SEVERAL_AVERAGES = (1.25, 1.75, 3.0, 6.0)
_AVERAGE = 1.75
_BATCHES = (1, 8, 32, 128, 512)
_BATCH = 64
_SENTENCES = 1_024
_VARIED = 512  # sentences whose lengths vary
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


def over_batches(task: Task, beam: int) -> Iterator[System]:
    """Both engines at batches of several sizes, for exits of one mean."""
    num_layers = task.num_layers
    for batch in _BATCHES:
        one, many = task.first(batch), task.first(refills(task, beam, batch))
        yield lockstep_system(one, "lockstep, full depth", Fixed(num_layers), beam, batch)
        masked = drawn_exits(_AVERAGE, num_layers)
        yield lockstep_system(one, "lockstep, masks", masked, beam, batch)
        yield continuous_system(many, _AVERAGE, beam, batch)


def over_averages(task: Task, beam: int) -> Iterator[System]:
    """Both engines at one batch, for exits of several means, beside cuts at each depth."""
    num_layers = task.num_layers
    one, many = task.first(_BATCH), task.first(refills(task, beam, _BATCH))
    yield System(
        {"system": "encoder alone", "beam_size": beam, "batch_size": _BATCH},
        int(one.lengths.sum()),
        encode(task, _BATCH),
        lambda _: {},
    )
    for depth in range(1, num_layers + 1):
        name = "lockstep, cut" if depth < num_layers else "lockstep, full depth"
        yield lockstep_system(one, name, Fixed(depth), beam, _BATCH)
    for average in _SEVERAL_AVERAGES:
        masked = drawn_exits(average, num_layers)
        yield lockstep_system(one, "lockstep, masks", masked, beam, _BATCH)
        yield continuous_system(many, average, beam, _BATCH)


def over_lengths(task: Task, beam: int) -> Iterator[System]:
    """Both engines at one batch, for translations of several lengths and exits of several means."""
    num_layers, task = task.num_layers, vary_lengths(task.first(_VARIED))
    full = Fixed(num_layers)
    yield lockstep_system(task, "lockstep, full depth", full, beam, _BATCH)
    for average in _SEVERAL_AVERAGES:
        masked = drawn_exits(average, num_layers)
        yield lockstep_system(task, "lockstep, masks", masked, beam, _BATCH)
        yield continuous_system(task, average, beam, _BATCH)


def opponents_systems(task: Task, beam: int, folder: Path) -> Iterator[System]:
    """The systems of others at full depth, and CTranslate2 with a shallow decoder."""
    config, task = task.model.trained.config, task.first(_BATCH)
    length = int(task.lengths.max())
    threads = len(os.sched_getaffinity(0))
    size = Size(
        config.model.encoder_layers,
        config.model.decoder_layers,
        config.model.decoder_dim,
        config.model.decoder_ff_dim,
        config.model.decoder_heads,
        config.data.vocabulary_size,
    )
    others = opponents(size, folder / "deep", threads)
    shallow = dataclasses.replace(size, decoder_layers=_SHALLOW)
    others += ctranslate2_opponents(shallow, folder / "shallow", threads)
    for other in others:

        def run_other(translate: Callable[..., None] = other.translate) -> None:
            translate(task.source, length, beam)

        yield System(
            {"system": other.name, "beam_size": beam, "batch_size": _BATCH},
            int(task.lengths.sum()),
            run_other,
            lambda _, depth=other.decoder_layers: {"average_exit": float(depth)},
        )


_TABLES = {"averages": over_averages, "batches": over_batches, "lengths": over_lengths}


def main(argv: Sequence[str]) -> int:
    """Measures as the command line says; returns the exit status."""
    options = flags.FlagValues()
    for name, (size, meaning) in _SIZES.items():
        flags.DEFINE_integer(name, size, meaning, 1, flag_values=options)
    define_path(options, "output", "A file of JSON lines to write.")
    flags.DEFINE_list("beams", ["1", "4"], "Beam sizes.", options)
    flags.DEFINE_list("tables", [], f"Some of {', '.join(_TABLES)}.", options)
    flags.DEFINE_integer("repetitions", 3, "Of each measurement.", 1, flag_values=options)
    flags.DEFINE_bool("opponents", False, "Time the systems of others too.", options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Measures, writes the lines, prints the table."""
    output = check_output(options.output)
    beams, tables = numbers("beams", options.beams, 1), some("tables", options.tables, [*_TABLES])
    check_drawing()
    sizes = {name: int(options[name].value or 0) for name in _SIZES}
    config = make_config(sizes)
    lengths = [sizes[name] for name in ("source_length", "target_length")]
    task = make_task(config, _SENTENCES, *lengths)
    setting = machine() | {"dtype": config.model.dtype} | sizes
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for beam in beams:
            for table in tables:
                systems = list(_TABLES[table](task, beam))
                if table == "averages" and options.opponents:
                    systems += opponents_systems(task, beam, Path(folder))
                measured = measure(systems, {"table": table}, options.repetitions)
                print(format_lines(measured), flush=True)
                lines += [line | setting for line in measured]
    write_lines(output, lines)
    speed(lines, output.with_suffix(".svg"))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
