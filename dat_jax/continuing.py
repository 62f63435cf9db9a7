# SPDX-License-Identifier: Apache-2.0
"""What may change between a run and its continuation; all else would make it another run."""

import dataclasses
import operator
from pathlib import Path

from dat_jax.config import Config
from dat_jax.errors import UserError
from dat_jax.paths import same_destination

_CHANGEABLE = {("model", "rematerialisation")} | {
    ("training", name)
    for name in (
        *("steps", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints"),
        *("skip_nonfinite", "sharding", "profile"),
    )
}
_PATHS = {("training", "initial_workdir")}


def check_continues(path: Path, begun: Config, config: Config, last_step: int) -> None:
    """Makes sure that `config` may continue the run in `path`, trained to `last_step`.

    How long to train, if no step's learning rate depends on that, what to keep and to tell, and how
    to decode may change, and all else may not. The prepared data compares its own section.

    Raises:
        UserError: it is another run, or one that was trained for longer.
    """
    total = config.training.steps
    if begun.optimizer.falls_to_zero and begun.training.steps != total:
        raise UserError(
            f"{path} holds a run whose learning rate falls to 0 after training.steps = "
            f"{begun.training.steps}, not {total}: give another --workdir, which may start "
            "from this one by training.initial_workdir"
        )
    if last_step > total:
        raise UserError(
            f"{path} has been trained to step {last_step} and training.steps is {total}: raise "
            "it, or give another --workdir"
        )
    kept = dataclasses.asdict(begun)
    for section, values in dataclasses.asdict(config).items():
        for key, value in values.items():
            before, name = kept[section][key], (section, key)
            if section in ("data", "decoding") or name in _CHANGEABLE:
                continue
            is_path = name in _PATHS and before and value
            if not (same_destination if is_path else operator.eq)(value, before):
                former = "the former path, which is no longer read, or " if is_path else ""
                raise UserError(
                    f"{path} holds a run with {section}.{key} = {before!r}, not {value!r}: "
                    f"give {former}another --workdir"
                )
