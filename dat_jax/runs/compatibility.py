# SPDX-License-Identifier: Apache-2.0
"""Checks that a run is whole and that a config may continue it: only some keys may change."""

import dataclasses
import operator
from pathlib import Path

from dat_jax.checkpoints.folders import check_stored, checkpoint_folders, saved_steps
from dat_jax.config import Config
from dat_jax.data.dataset import prepared_config
from dat_jax.data.preparation import check_same
from dat_jax.errors import UserError
from dat_jax.runs.workdir import Run
from dat_jax.storage.paths import same_destination

# Only a run that has saved a checkpoint has any of these. The first holds the last saved step.
_OF_TRAINED = ("checkpoints.json", "evaluation.jsonl", "tuned", "decode")

_CHANGEABLE = {("model", "rematerialisation")} | {
    ("training", name)
    for name in (
        *("steps", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints"),
        *("skip_nonfinite", "sharding", "profile"),
        *("best_by", "patience", "bleu_every", "bleu_exits"),
    )
}
_PATHS = {
    ("training", "initial_workdir"): "the former path, which is no longer read",
    ("data", "prepared"): "the former path, or, if that workdir has moved, write its new path into "
    "config.json",
}
"""What to give if a path differs."""


def check_continues(run: Run, config: Config) -> None:
    """Checks that a workdir is new or holds a run that `config` may continue.

    Raises:
        UserError: it holds another run or one that was trained for longer, a part of it is missing,
            or its checkpoint folder holds checkpoints of another run.
    """
    folder = run.checkpoints_in(config.training.checkpoint_folder)
    check_stored(str(folder), "training.checkpoint_folder")
    if folder != run.checkpoints and saved_steps(folder):
        raise UserError(
            f"{folder} holds checkpoints and is not the checkpoint folder of {run.path}: give "
            "another training.checkpoint_folder, or, if you moved the run's checkpoints there, "
            f"write it into {run.config_file}"
        )
    if not check_whole(run):
        return
    begun, training = run.config, config.training
    if folder == run.checkpoints:
        own = begun.training.checkpoint_folder
        training = dataclasses.replace(training, checkpoint_folder=own)
    asked = dataclasses.replace(config, training=training)
    check_same(config.data, run.data)
    _check_settings(run.path, begun, asked, max(run.saved_steps))


def check_whole(run: Run) -> bool:
    """Checks that a run with checkpoints has everything it needs to continue.

    A run that was killed while saving its first checkpoint has none.

    Returns:
        Whether the run has checkpoints.

    Raises:
        UserError: a part is missing and would silently be made again from nothing.
    """
    left = [path for name in _OF_TRAINED if (path := run.path / name).exists()]
    saved, unfinished = checkpoint_folders(run.checkpoints)
    if not saved and (unfinished or not left):
        return False
    parts = {
        str(run.config_file): run.config_file.exists(),
        f"a checkpoint in {run.checkpoints}": bool(saved),
        str(run.data): prepared_config(run.data) is not None,
    }
    for part, is_there in parts.items():
        if not is_there:
            raise UserError(
                f"{run.path} holds a trained run, as {(left or [run.checkpoints])[0]} shows, but "
                f"{part} is missing: restore it, give another --workdir, or, to start from "
                f"nothing, delete {run.path}"
            )
    return True


def _check_settings(path: Path, begun: Config, config: Config, last_step: int) -> None:
    """Checks that `config` may continue the run in `path`, trained to `last_step`.

    Only these may change: training length (unless the learning rate falls to 0 at its end),
    logging, checkpointing, patience, memory and decoding keys. Of the section `data` only the place
    of the prepared data is compared here, and the rest elsewhere, with that data.

    Raises:
        UserError: another key differs, or the run is already past `training.steps`.
    """
    total = config.training.steps
    if begun.optimizer.falls_to_zero and begun.training.steps != total:
        raise UserError(
            f"{path} holds a run whose learning rate falls to 0 after training.steps = "
            f"{begun.training.steps}, not {total}: give another --workdir, and start it from this "
            "one with training.initial_workdir if you like"
        )
    if last_step > total:
        raise UserError(
            f"{path} has been trained to step {last_step} and training.steps is {total}: raise "
            "it, or give another --workdir"
        )
    changeable = set(_CHANGEABLE)
    if not begun.training.bleu_every:  # else BLEU of other sentences would be compared
        changeable.add(("training", "bleu_sentences"))
    kept = dataclasses.asdict(begun)
    for section, values in dataclasses.asdict(config).items():
        for key, value in values.items():
            before, name = kept[section][key], (section, key)
            elsewhere = section in ("data", "decoding") and name not in _PATHS
            if elsewhere or name in changeable:
                continue
            is_path = name in _PATHS and before and value
            if not (same_destination if is_path else operator.eq)(value, before):
                former = f"{_PATHS[name]}, or " if is_path else ""
                raise UserError(
                    f"{path} holds a run with {section}.{key} = {before!r}, not {value!r}: "
                    f"give {former}another --workdir"
                )
