# SPDX-License-Identifier: Apache-2.0
"""Describes a workdir: `python -m dat_jax.info --workdir=W`.

Prints the settings that differ from configs/base.py (or from another file, `--config=FILE`),
progress and checkpoints, parameters, exits, tuned thresholds, the last scores, and the data. Loads
no parameters and writes nothing, so the run may be training meanwhile.
"""

import dataclasses
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from etils import epath

from dat_jax.checkpoints.folders import folder_of
from dat_jax.cli.command_line import define_config, define_workdir, read_config, run
from dat_jax.config import Config
from dat_jax.data.dataset import open_vocabularies, prepared_config, report_of
from dat_jax.errors import UserError
from dat_jax.evaluation.tables import format_table
from dat_jax.exits.parsing import available_rules
from dat_jax.model.transformer import count_parameters
from dat_jax.runs.workdir import Run, make_model
from dat_jax.tuning.fronts import KINDS, load_front

_BASE = Path(__file__).resolve().parent.parent / "configs" / "base.py"  # of a checkout
_TAIL = 1 << 16  # bytes at the end of the metrics to look at


def main(argv: Sequence[str]) -> int:
    """Describes the workdir that `argv` names; returns the exit status."""
    options = flags.FlagValues()
    define_config(options, argv, default=str(_BASE) if _BASE.exists() else None)
    define_workdir(options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Prints each part as soon as it is known."""
    workdir = Run(options.workdir)
    config, usual = workdir.config, Config.from_dict(read_config(options))
    for title, lines in (
        ("settings that differ from the defaults", _settings(config, usual)),
        ("progress", _progress(workdir, config)),
        ("checkpoints", _checkpoints(workdir)),
        ("parameters", _parameters(workdir, config)),
        ("exits", _exits(config)),
        ("tuned thresholds", _tuned(workdir)),
        ("last scores", _scores(workdir)),
        ("data", _data(workdir)),
    ):
        print(f"{title}:", *(f"  {line}" for line in lines), sep="\n", flush=True)


def _settings(config: Config, usual: Config) -> Iterator[str]:
    """Yields each key with another value than usual, and the usual one."""
    ours, theirs = dataclasses.asdict(config), dataclasses.asdict(usual)
    same = True
    for section, values in ours.items():
        for key, value in values.items():
            if value != theirs[section][key]:
                same = False
                yield f"{section}.{key} = {value!r} (default {theirs[section][key]!r})"
    if same:
        yield "none"


def _progress(workdir: Run, config: Config) -> Iterator[str]:
    steps = workdir.saved_steps
    yield f"saved at step {max(steps, default=0):,} of {config.training.steps:,}"
    last = _last_metrics(workdir.training_files.metrics)
    for name in ("train/loss", "valid/loss"):
        if name in last:
            step, value = last[name]
            yield f"{name} {value:.4g} at step {step:,}"


def _last_metrics(path: Path) -> dict[str, tuple[int, int | float]]:
    """Returns the step and the value at which each metric was last written."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        lines = file.read().split(b"\n")
    last: dict[str, tuple[int, int | float]] = {}
    for line in lines:
        try:
            values = dict(json.loads(line))
        except ValueError:  # the end of a line, or the beginning of one
            continue
        last |= {name: (values["step"], value) for name, value in values.items()}
    return last


def _checkpoints(workdir: Run) -> Iterator[str]:
    """Yields the size of each checkpoint, oldest first, and the best one."""
    folder, steps = workdir.checkpoints, workdir.saved_steps
    for step in steps:
        yield f"step {step:,}: {_size(folder_of(folder, step)) / 1e6:,.1f} MB"
    best = workdir.best
    if step := best.step(steps):
        yield f"best: {best.describe(step)}"
    yield f"in {folder}" if steps else f"none in {folder}"


def _size(path: epath.Path) -> int:
    """Returns the bytes of all files below a folder; training may delete some meanwhile."""
    try:
        if path.is_dir():
            return sum(map(_size, path.iterdir()))
        return path.stat().length
    except FileNotFoundError:
        return 0


def _parameters(workdir: Run, config: Config) -> Iterator[str]:
    """Yields the number of parameters of each part, from their shapes alone."""
    if prepared_config(workdir.data) is None:
        yield "unknown before the data is prepared"
        return
    model = make_model(config, open_vocabularies(workdir.vocabulary, config.data))
    counts = count_parameters(model)
    width = len(f"{sum(counts.values()):,}")
    for part, count in counts.items():
        yield f"{count:>{width},} {part}"
    yield f"{sum(counts.values()):>{width},} in all"


def _exits(config: Config) -> Iterator[str]:
    model = config.model
    depths = ", ".join(map(str, model.exit_depths))
    yield f"after block {depths} of {model.decoder_layers}, classifiers: {model.classifiers}"
    yield f"exit head: {model.exit_head}"
    yield f"policies: {', '.join(rule.form() for rule in available_rules(model))}"


def _tuned(workdir: Run) -> Iterator[str]:
    """Yields a table of the front of each kind of rule."""
    fronts = {kind: load_front(workdir, kind) for kind in KINDS}
    for front in filter(None, fronts.values()):
        yield from format_table(front).splitlines()
    if not any(fronts.values()):
        place = shlex.quote(str(workdir.path))
        command = f"python -m dat_jax.tuning --workdir={place} --policy=RULE"
        yield f"none: {command} tunes them"


def _scores(workdir: Run) -> Iterator[str]:
    """Yields the table with which the last training ended."""
    path = workdir.evaluation
    if not path.exists():
        yield "none: train.py scores the model at its end"
        return
    try:
        summaries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        yield _origin(summaries)
        yield from format_table(summaries).splitlines()
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{path} is damaged: run train.py again, which writes it") from None


def _origin(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Returns the split and the checkpoint of the scores."""
    steps = sorted({summary["checkpoint_step"] for summary in summaries})
    split = summaries[0].get("split", "test")  # 0.1.0 wrote none
    return f"{split}, of the checkpoint at step {', '.join(f'{step:,}' for step in steps)}"


def _data(workdir: Run) -> Iterator[str]:
    config = prepared_config(workdir.data)
    if config is None:
        yield "not prepared yet"
        return
    yield f"{config.source_language} to {config.target_language}, from {config.source}"
    if other := workdir.config.data.prepared:
        yield f"prepared in {other}"
    sizes = [side.size for side in open_vocabularies(workdir.vocabulary, config)]
    pieces = " and ".join(f"{size:,}" for size in dict.fromkeys(sizes))
    yield f"vocabulary: {config.vocabulary}, {pieces} pieces"
    yield from report_of(workdir.data).splitlines()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
