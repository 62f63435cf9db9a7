# SPDX-License-Identifier: Apache-2.0
"""Speed of decoding, compared with other systems, on random weights of one size.

    python -m benchmarks.decode --output=FILE [--opponents] [--beams=1,5] [--tables=averages]

Three tables: at one number of sentences in work, cuts at each depth and exits of several means; the
same over several numbers of sentences in work; and with lengths that vary from half of the target
length to all of it. Exits are drawn and lengths forced: all systems write the same number of tokens
with the same number of sentences in work.

Repetitions are interleaved and figures are medians; a line of JSON for each, tables, and a plot
next to the file. `--opponents` times CTranslate2 and Hugging Face's Marian too, on a CPU
(`pip install -e '.[opponents]'`).
"""

import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import flags

from benchmarks.decode.opponents import Size, ctranslate2_opponents, opponents
from benchmarks.decode.systems import System, engine, format_lines, measure
from benchmarks.options import numbers, some
from benchmarks.report.figures import check_drawing, speed
from benchmarks.results import check_output, write_lines
from benchmarks.task import Task, drawn_exits, encode, make_config, make_task, vary_lengths
from benchmarks.timing import machine
from dat_jax.cli.command_line import define_path, run
from dat_jax.exits.rules import Fixed

_AVERAGES = (1.25, 1.75, 3.0, 6.0)
_AVERAGE = 1.75
_WORKS = (1, 8, 32, 64, 384)
_SENTENCES = 768
_VARIED = 4  # times the sentences in work, whose lengths vary
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


def over_averages(task: Task, beam: int, in_work: int) -> Iterator[System]:
    """Cuts at each depth, and exits of several means."""
    task = task.first(in_work)
    yield System(
        {"system": "encoder alone", "beam_size": beam, "in_work": in_work},
        int(task.lengths.sum()),
        encode(task, in_work),
        lambda _: {},
    )
    for depth in range(1, task.num_layers + 1):
        name = "cut" if depth < task.num_layers else "full depth"
        yield engine(task, name, Fixed(depth), beam, in_work)
    for average in _AVERAGES:
        yield engine(task, "exits", drawn_exits(average, task.num_layers), beam, in_work)


def over_works(task: Task, beam: int, _: int) -> Iterator[System]:
    """Several numbers of sentences in work: full depth, a cut, and exits of one mean."""
    for in_work in _WORKS:
        few, exits = task.first(in_work), drawn_exits(_AVERAGE, task.num_layers)
        yield engine(few, "full depth", Fixed(task.num_layers), beam, in_work)
        yield engine(few, "cut", Fixed(_SHALLOW), beam, in_work)
        yield engine(few, "exits", exits, beam, in_work)


def over_lengths(task: Task, beam: int, in_work: int) -> Iterator[System]:
    """Translations of several lengths, so that slots are refilled: exits of several means."""
    task = vary_lengths(task.first(_VARIED * in_work))
    yield engine(task, "full depth", Fixed(task.num_layers), beam, in_work)
    yield engine(task, "cut", Fixed(_SHALLOW), beam, in_work)
    for average in _AVERAGES:
        yield engine(task, "exits", drawn_exits(average, task.num_layers), beam, in_work)


def opponents_systems(task: Task, beam: int, in_work: int, folder: Path) -> Iterator[System]:
    """The systems of others at full depth, and CTranslate2 with a shallow decoder."""
    config, task = task.model.trained.config, task.first(in_work)
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
            {"system": other.name, "beam_size": beam, "in_work": in_work},
            int(task.lengths.sum()),
            run_other,
            lambda _, depth=other.decoder_layers: {"average_exit": float(depth)},
        )


_TABLES = {"averages": over_averages, "works": over_works, "lengths": over_lengths}


def main(argv: Sequence[str]) -> int:
    """Measures as the command line says; returns the exit status."""
    options = flags.FlagValues()
    for name, (size, meaning) in _SIZES.items():
        flags.DEFINE_integer(name, size, meaning, 1, flag_values=options)
    define_path(options, "output", "A file of JSON lines to write.")
    flags.DEFINE_list("beams", ["1", "5"], "Beam sizes.", options)
    flags.DEFINE_integer("in_work", 64, "Sentences in work.", 1, _SENTENCES, flag_values=options)
    flags.DEFINE_list("tables", [], f"Some of {', '.join(_TABLES)}.", options)
    flags.DEFINE_integer("repetitions", 3, "Of each measurement.", 1, flag_values=options)
    flags.DEFINE_bool("opponents", False, "Time the systems of others too.", options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Measures, writes the lines, prints the table."""
    output = check_output(options.output)
    beams, tables = numbers("beams", options.beams, 1), some("tables", options.tables, [*_TABLES])
    check_drawing()
    in_work = int(options.in_work)
    sizes = {name: int(options[name].value or 0) for name in _SIZES}
    config = make_config(sizes)
    lengths = [sizes[name] for name in ("source_length", "target_length")]
    task = make_task(config, _SENTENCES, *lengths)
    setting = machine() | {"dtype": config.model.dtype} | sizes
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for beam in beams:
            for table in tables:
                systems = list(_TABLES[table](task, beam, in_work))
                if table == "averages" and options.opponents:
                    systems += opponents_systems(task, beam, in_work, Path(folder))
                measured = measure(systems, {"table": table}, options.repetitions)
                print(format_lines(measured), flush=True)
                lines += [line | setting for line in measured]
    write_lines(output, lines)
    speed(lines, output.with_suffix(".svg"))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
