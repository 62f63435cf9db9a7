# SPDX-License-Identifier: Apache-2.0
"""Checks that a config may continue a run: only some keys may change."""

import dataclasses
import operator
from pathlib import Path

from dat_jax.config import Config
from dat_jax.errors import UserError
from dat_jax.storage.paths import same_destination

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


def check_continues(path: Path, begun: Config, config: Config, last_step: int) -> None:
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
