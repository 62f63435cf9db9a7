# SPDX-License-Identifier: Apache-2.0
"""Speed of decoding, compared with other systems, on random weights of one size.

    python -m benchmarks.decode --output=FILE [--opponents] [--beams=1,5] [--tables=averages]

Tables: `averages` has cuts at each depth and exits of several means, with one number of sentences
in work; `works` compares numbers of sentences in work; in `lengths`, lengths vary between half of
the target length and all of it. Exits are drawn and lengths forced: all systems generate the same
number of tokens with the same number of sentences in work.

Repetitions are interleaved and figures are medians. Writes a line of JSON per measurement and a
plot next to the file, and prints the tables. `--opponents` also times CTranslate2 and Hugging
Face's Marian on a CPU (`pip install -e '.[opponents]'`).
"""

import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from absl import flags

from benchmarks.decode.opponents import opponents
from benchmarks.decode.plot import speed
from benchmarks.decode.systems import SHALLOW, System, format_lines, measure, ways
from benchmarks.drawing import check_drawing
from benchmarks.options import numbers, some
from benchmarks.results import Line, check_output, write_lines
from benchmarks.task import Task, encode, make_config, make_task, vary_lengths
from benchmarks.timing import machine
from dat_jax.cli.command_line import define_path, run

_AVERAGES = (1.25, 1.75, 3.0, 6.0)
_WORKS = (1, 8, 32, 64, 384)
_SENTENCES = 768
_VARIED = 4  # times the sentences in work, whose lengths vary
_SIZES = {
    "dim": (512, "Width of encoder and decoder."),
    "ff_dim": (1024, "Width of the feed-forward layers."),
    "heads": (8, "Attention heads."),
    "num_layers": (6, "Decoder blocks."),
    "encoder_layers": (6, "Encoder blocks."),
    "vocabulary_size": (10_000, "Pieces."),
    "source_length": (28, "Pieces of each source."),
    "target_length": (32, "Pieces of each translation, including EOS."),
}


def over_averages(task: Task, beam: int, in_work: int) -> Iterator[System]:
    """Yields cuts at each depth, and exits of several means."""
    task = task.first(in_work)
    yield System("encoder alone", in_work, int(task.lengths.sum()), encode(task, in_work))
    yield from ways(task, beam, in_work, range(1, task.num_layers), _AVERAGES)


def over_works(task: Task, beam: int, _: int) -> Iterator[System]:
    """Yields full depth, a cut and exits of one mean, for several numbers of sentences in work."""
    for in_work in _WORKS:
        yield from ways(task.first(in_work), beam, in_work)


def over_lengths(task: Task, beam: int, in_work: int) -> Iterator[System]:
    """Yields exits of several means for lengths that vary, so that slots are refilled."""
    task = vary_lengths(task.first(_VARIED * in_work))
    yield from ways(task, beam, in_work, averages=_AVERAGES)


def other_systems(task: Task, beam: int, in_work: int, folder: Path) -> Iterator[System]:
    """Yields the systems of others."""
    task, threads = task.first(in_work), len(os.sched_getaffinity(0))
    for other in opponents(task.trained.config, SHALLOW, folder, threads):
        translate = partial(other.translate, task.source, int(task.lengths.max()), beam)
        exits = {"average_exit": float(other.decoder_layers)}
        tokens = int(task.lengths.sum())
        yield System(other.name, in_work, tokens, translate, lambda _, exits=exits: exits)


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
    flags.DEFINE_bool("opponents", False, "Also time the systems of others.", options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Checks, measures, writes the lines and the plot."""
    output = check_output(options.output)
    beams, tables = numbers("beams", options.beams, 1), some("tables", options.tables, _TABLES)
    check_drawing()
    with tempfile.TemporaryDirectory() as folder:
        lines = write_lines(output, _lines(options, beams, tables, Path(folder)))
    speed(lines, output.with_suffix(".svg"))


def _lines(
    options: flags.FlagValues, beams: list[int], tables: list[str], folder: Path
) -> Iterator[Line]:
    """Measures and prints table by table; yields the lines."""
    sizes = {name: int(options[name].value or 0) for name in _SIZES}
    config, in_work = make_config(sizes), options.in_work
    task = make_task(config, _SENTENCES, sizes["source_length"], sizes["target_length"])
    setting = machine() | {"dtype": config.model.dtype} | sizes
    for beam, table in itertools.product(beams, tables):
        systems = list(_TABLES[table](task, beam, in_work))
        if table == "averages" and options.opponents:
            systems += other_systems(task, beam, in_work, folder)
        measured = measure(systems, {"table": table, "beam_size": beam}, options.repetitions)
        print(format_lines(measured), flush=True)
        yield from (line | setting for line in measured)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
