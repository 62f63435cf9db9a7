# SPDX-License-Identifier: Apache-2.0
"""The paper's tables and figures, made anew: named lists of trainings and decodes.

    python -m benchmarks.reproduce --suite=table1 --data=DIR --output=results/NAME.jsonl \\
        [--config=configs/multi30k_de_en.py] [--exits_config=configs/multi30k_exits.py] \\
        [--seeds=0,1,2] [--points=aligned,baseline_6] [--budget_minutes=60]

DIR holds train.de, train.en, valid.de and so on. Suites: smoke (a check that all works), table1,
table2, table3, exits, heads, ablation, lifts and time (benchmarks/_suites.py); `--points` takes
some of one. Each point is a training, kept in a folder of `--runs`, and what decodes with it, a
line of JSON each. What the file has is not done again (but the training that thresholds are tuned
of), and a training that was broken off goes on: run the same command until nothing is left.
Thresholds are tuned on `valid`; `test` is looked at once for each.

The second phase changes in its first what `--exits_config` changes in `--config`.
"""

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from benchmarks._budget import Budget, Spent
from benchmarks._decodes import KEYS, decode, known_by, measure_speed
from benchmarks._lines import Line, Lines
from benchmarks._options import numbers, some
from benchmarks._suites import SUITES, TUNED, Point, Setting
from benchmarks._trainings import Trained, Trainer, changed, differences
from dat_jax.cli.command_line import define_config, define_path, read_config, run
from dat_jax.config import Config
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
    define_path(options, "output", "A file of JSON lines to write, or to go on with.")
    define_config(options, argv, default=_CONFIG)
    second = "What the second phase changes; by default NAME_exits.py beside --config=NAME_X_Y.py."
    flags.DEFINE_string("exits_config", None, second, options)
    flags.DEFINE_string("runs", "runs/reproduce", "The folder of trainings.", options)
    flags.DEFINE_list("seeds", ["0"], "Each training is made with each of them.", options)
    flags.DEFINE_list("points", [], "Names of trainings; by default all of the suite.", options)
    minutes = "Time to stop after; by default when nothing is left."
    flags.DEFINE_float("budget_minutes", None, minutes, 0, flag_values=options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Checks everything, then measures point by point for as long as the budget allows."""
    keep_programs()
    budget = Budget(options.budget_minutes)
    values = changed(read_config(options), {"data.source": f"text:{options.data}"})
    trainer = Trainer(values, as_path(options.runs))
    points = _points(options, values)
    seeds = numbers("seeds", options.seeds, 0)
    for seed in seeds:
        for point in points:
            trainer.config(point.training, seed)
    lines = Lines(options.output, options.suite, KEYS)
    measured = _timed if options.suite == "time" else _decoded
    try:
        for line in measured(trainer, points, seeds, lines, budget):
            lines.add({"benchmark": "reproduce", "suite": options.suite} | line)
            print(_row(line), flush=True)
    except Spent:
        _tell_spent(options, lines)
    else:
        print(f"{options.output} has {len(lines)} lines: nothing is left to do")


def _decoded(
    trainer: Trainer, points: list[Point], seeds: list[int], lines: Lines, budget: Budget
) -> Iterator[Line]:
    """Trains each point and decodes with it; yields the lines that are new."""
    for seed in seeds:
        for point in points:
            if not _has_all(trainer, point, seed, lines):
                trained = _train(trainer, point, seed, budget)
                yield from decode(trained, point, lines, budget)


def _has_all(trainer: Trainer, point: Point, seed: int, lines: Lines) -> bool:
    """True if no line of a point is missing; of tuned thresholds nobody knows before tuning."""
    config, sha256 = trainer.config(point.training, seed), trainer.sha256(point.training, seed)
    return not any(policy.startswith(TUNED) for policy in point.policies) and all(
        lines.find(
            **known_by(sha256, config.decoding, parse_policy(policy, config.model).name, split)
        )
        for policy in point.policies
        for split in point.splits
    )


def _timed(
    trainer: Trainer, points: list[Point], seeds: list[int], lines: Lines, budget: Budget
) -> Iterator[Line]:
    """Trains all points, then times their policies in turn, for one seed after the other."""
    for seed in seeds:
        trained = [(_train(trainer, point, seed, budget), point) for point in points]
        yield from measure_speed(trained, lines, budget)


def _train(trainer: Trainer, point: Point, seed: int, budget: Budget) -> Trained:
    with budget.stopping():
        return trainer.train(point.training, seed)


def _points(options: flags.FlagValues, values: dict[str, Any]) -> list[Point]:
    """The points of the suite that were asked for.

    Raises:
        UserError: there is none of a name.
    """
    second_phase = cache(partial(_second_phase, options))
    setting = Setting(values["model"]["decoder_layers"], second_phase)
    points = SUITES[options.suite](setting)
    wanted = some("points", options.points, [point.training.name for point in points])
    return [point for point in points if point.training.name in wanted]


def _second_phase(options: flags.FlagValues) -> dict[str, Any]:
    """The changes of the second phase, which are the differences of two config files.

    Raises:
        UserError: there is no such file.
    """
    first = Path(config_flags.get_config_filename(options["config"]))
    second = first.with_name(f"{first.stem.partition('_')[0]}_exits.py")
    second = as_path(options.exits_config) if options.exits_config else second
    if not second.is_file():
        raise UserError(
            f"{second} is no file, and no config of a second phase: name one, as "
            "--exits_config=configs/multi30k_exits.py"
        )
    changes = differences(*(_load(path) for path in (second, first)))
    changes.pop("training.initial_workdir", None)
    return changes


def _load(path: Path) -> dict[str, Any]:
    """The values of a config file.

    Raises:
        UserError: it is none of a training.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if hasattr(module, "get_config"):
            return _checked(module.get_config().to_dict(), path)
    raise UserError(
        f"{path} is no config of a training, for it has no get_config(): name one, as "
        "--exits_config=configs/multi30k_exits.py"
    )


def _checked(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The values of a config of a training, which those of another kind are not."""
    try:
        Config.from_dict(values)
    except UserError as error:
        raise UserError(f"{path} is no config of a training: {error}") from None
    return values


def _row(line: Line) -> str:
    """The row of a table for a line, with the point that it is of."""
    return (
        f"{line['point']}, seed {line['seed']}, {line['split']} "
        + (format_table([line]).splitlines()[-1])
    )


def _tell_spent(options: flags.FlagValues, lines: Lines) -> None:
    """Says that the budget is spent.

    Raises:
        UserError: it was too small for anything.
    """
    if not lines:
        raise UserError(
            f"--budget_minutes={options.budget_minutes:g} is too small for any point: give more, "
            "or run the same again, which goes on with what has been trained"
        )
    print(f"{options.output} has {len(lines)} lines and the budget is spent: run again to go on")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
