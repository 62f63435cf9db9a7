# SPDX-License-Identifier: Apache-2.0
"""Reproduces the paper's tables and figures: named lists of trainings and decodes.

    python -m benchmarks.reproduce --suite=table1 --data=DIR --output=results/NAME.jsonl \\
        [--config=configs/multi30k_de_en.py] [--exits_config=configs/multi30k_exits.py] \\
        [--seeds=0,1,2] [--points=aligned,baseline_6] [--batch_sizes=32] [--budget_minutes=60]

DIR holds train.de, train.en, valid.de and so on. Suites: smoke (a check that all works), table1,
table2, table3, exits, heads, ablation, lifts and time (benchmarks/reproduce/suites.py). A
suite consists of points, of which `--points` selects some: a training, kept in a folder of
`--runs`, and the policies that decode with it, each of which writes a line of JSON. Lines in the
file are not measured again, and an interrupted training is resumed: run the same command until
nothing is left. Thresholds are tuned on `valid`; each policy decodes `test` once.

The second phase changes in its first phase what `--exits_config` changes in `--config`.
"""

import itertools
import runpy
import sys
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from benchmarks.options import numbers, some
from benchmarks.reproduce.budget import Budget, Spent
from benchmarks.reproduce.decodes import decode
from benchmarks.reproduce.models import KEYS, known_by
from benchmarks.reproduce.speed import BATCH_SIZES, measure_speed
from benchmarks.reproduce.suites import SUITES, TUNED, Point, RuleSettings, Setting
from benchmarks.reproduce.trainings import Trained, Trainer, changed, differences
from benchmarks.results import Line, Lines
from dat_jax.cli.command_line import define_config, define_path, read_config, run
from dat_jax.config import Config
from dat_jax.config.schema import require
from dat_jax.decoding.rule_settings import check_shortlist_size
from dat_jax.errors import UserError
from dat_jax.evaluation.tables import format_table
from dat_jax.exits.parsing import parse_policy
from dat_jax.runtime.programs import keep_programs
from dat_jax.storage.paths import as_path

_CONFIG = "configs/multi30k_de_en.py"


def main(argv: Sequence[str]) -> int:
    """Measures as the command line says; returns the exit status."""
    options = flags.FlagValues()
    flags.DEFINE_enum("suite", None, list(SUITES), "What to measure.", options, required=True)
    define_path(options, "data", "The folder of the text.")
    define_path(options, "output", "A file of JSON lines to write or to continue.")
    define_config(options, argv, default=_CONFIG)
    second = "Config of the second phase; by default NAME_exits.py next to --config=NAME_X_Y.py."
    flags.DEFINE_string("exits_config", None, second, options)
    flags.DEFINE_string("runs", "runs/reproduce", "The folder of all trainings.", options)
    flags.DEFINE_list("seeds", ["0"], "Seeds of each training.", options)
    flags.DEFINE_list("points", [], "Trainings of the suite, by default all.", options)
    batches = f"Of {', '.join(map(str, BATCH_SIZES))}, those to time; by default all."
    flags.DEFINE_list("batch_sizes", [], batches, options)
    minutes = "Minutes to stop after; by default, when nothing is left."
    flags.DEFINE_float("budget_minutes", None, minutes, 0, flag_values=options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Checks everything, then measures until nothing is left or the budget is spent."""
    keep_programs()
    budget = Budget(options.budget_minutes)
    values = changed(read_config(options), {"data.source": f"text:{options.data}"})
    for name in RuleSettings._fields:
        value = values["decoding"][name]
        require(
            not value,
            f"decoding.{name} is {value}, but each point of a suite has its own: set it to 0",
        )
    trainer = Trainer(values, as_path(options.runs))
    points = _points(options, values)
    for split in sorted({split for point in points for split in point.splits}):
        require(
            split in trainer.splits,
            f"--data={options.data} has no {split} split, which --suite={options.suite} decodes: "
            "add it",
        )
    seeds = numbers("seeds", options.seeds, 0)
    for seed, point in itertools.product(seeds, points):
        config = trainer.config(point.training, seed)
        check_shortlist_size(point.settings.of(config.decoding), config.data.vocabulary_size)
    lines = Lines(options.output, options.suite, KEYS)
    is_timed = options.suite == "time"
    require(
        is_timed or not options.batch_sizes,
        f"--batch_sizes={','.join(options.batch_sizes)}: only the suite time measures "
        "time: leave it out",
    )
    wanted = some("batch_sizes", options.batch_sizes, [str(size) for size in BATCH_SIZES])
    sizes = [size for size in BATCH_SIZES if str(size) in wanted]
    measured = partial(_timed, sizes) if is_timed else _decoded
    try:
        for line in measured(trainer, points, seeds, lines, budget):
            lines.add({"benchmark": "reproduce", "suite": options.suite} | line)
            print(_row(line), flush=True)
    except Spent:
        if not lines:
            raise UserError(
                f"--budget_minutes={options.budget_minutes:g} is too small for any point: give "
                "more, or run again to resume the training"
            ) from None
        print(f"{options.output} has {len(lines)} lines and the budget is spent: run again")
    else:
        print(f"{options.output} has {len(lines)} lines: nothing is left to do")


def _decoded(
    trainer: Trainer, points: list[Point], seeds: list[int], lines: Lines, budget: Budget
) -> Iterator[Line]:
    """Trains each point and decodes with it; yields the new lines."""
    for seed, point in itertools.product(seeds, points):
        if not _has_all(trainer, point, seed, lines):
            yield from decode(_train(trainer, point, seed, budget), point, lines, budget)


def _has_all(trainer: Trainer, point: Point, seed: int, lines: Lines) -> bool:
    """Returns whether no line of a point is missing; unknown thresholds count as missing."""
    if any(policy.startswith(TUNED) for policy in point.policies):
        return False
    config, sha256 = trainer.config(point.training, seed), trainer.sha256(point.training, seed)
    names = [parse_policy(policy, config.model).name for policy in point.policies]
    pairs = itertools.product(names, point.splits)
    return all(lines.find(**known_by(sha256, config.decoding, *pair)) for pair in pairs)


def _timed(
    batch_sizes: Sequence[int],
    trainer: Trainer,
    points: list[Point],
    seeds: list[int],
    lines: Lines,
    budget: Budget,
) -> Iterator[Line]:
    """Trains all points of a seed, then times their policies in turn; yields the new lines."""
    for seed in seeds:
        trained = [(_train(trainer, point, seed, budget), point) for point in points]
        yield from measure_speed(trained, batch_sizes, lines, budget)


def _train(trainer: Trainer, point: Point, seed: int, budget: Budget) -> Trained:
    with budget.stopping():
        return trainer.train(point.training, seed)


def _points(options: flags.FlagValues, values: dict[str, Any]) -> list[Point]:
    """Returns the points of the suite that the options select."""
    layers = values["model"]["decoder_layers"]
    points = SUITES[options.suite](Setting(layers, cache(partial(_second_phase, options))))
    wanted = some("points", options.points, [point.training.name for point in points])
    return [point for point in points if point.training.name in wanted]


def _second_phase(options: flags.FlagValues) -> dict[str, Any]:
    """Returns the changes of the second phase: the differences of two config files."""
    first = Path(config_flags.get_config_filename(options["config"]))
    second = first.with_name(f"{first.stem.partition('_')[0]}_exits.py")
    second = as_path(options.exits_config) if options.exits_config else second
    changes = differences(*(_load(path) for path in (second, first)))
    changes.pop("training.initial_workdir", None)
    return changes


def _load(path: Path) -> dict[str, Any]:
    """Returns the values of a config file, or refuses one that is not of a training."""
    try:
        module = runpy.run_path(str(path))
        if "get_config" not in module:
            raise UserError("it has no get_config()")
        values = module["get_config"]().to_dict()
        Config.from_dict(values)
    except Exception as error:  # a config is the user's code
        raise UserError(
            f"{path} is not the config of a training ({error}): name one, as "
            "--exits_config=configs/multi30k_exits.py"
        ) from None
    return values


def _row(line: Line) -> str:
    """Returns the table row of a line, with its point."""
    row = format_table([line]).splitlines()[-1]
    return f"{line['point']}, seed {line['seed']}, {line['split']} {row}"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
