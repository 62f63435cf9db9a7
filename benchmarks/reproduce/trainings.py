# SPDX-License-Identifier: Apache-2.0
"""Trainings of a suite: their configs, the checksums that identify them, and their folders."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from configs import base
from dat_jax.config import Config, DecodingConfig
from dat_jax.data.sources import open_source
from dat_jax.runs.compatibility import check_continues
from dat_jax.runs.workdir import Run
from dat_jax.storage.checksums import Checksum
from train import train_model

# Keys that do not change a training's results, or that its lines hold separately.
_ELSEWHERE = {
    *(
        "data.source",
        "data.prepared",
        "model.rematerialisation",
        "training.initial_workdir",
        "training.profile",
    ),
    *("training.checkpoint_folder", "training.sharding", "training.log_every"),
    *("training.validate_every", "decoding.policy", "decoding.beam_size", "decoding.shortlist"),
    *("decoding.trailing_gap", "decoding.report_policies", "decoding.report_split"),
    "decoding.batch_size",
}


@dataclasses.dataclass(frozen=True)
class Training:
    """A named training: its changes to a config, and the training that it starts from, if any."""

    name: str
    changes: dict[str, Any]  # "section.key" to a value
    start: "Training | None" = None


class Trained(NamedTuple):
    """A finished training, and the settings to decode with."""

    training: Training
    run: Run
    sha256: str
    decoding: DecodingConfig


class Trainer:
    """Runs or resumes the trainings of a suite, each in its own folder."""

    def __init__(self, values: Mapping[str, Any], runs: Path) -> None:
        """Takes the values of a config, which trainings change, and the folder of all runs.

        Raises:
            UserError: the config is impossible, or its text is missing.
        """
        self._values, self._runs = values, runs
        source = open_source(Config.from_dict(values).data)
        self.splits = source.splits
        self._text = [Checksum.of(path).sha256 for path in source.files]

    def config(self, training: Training, seed: int) -> Config:
        """Returns the config of a training.

        Raises:
            UserError: it is impossible.
        """
        changes = training.changes | {"training.seed": seed}
        if training.start:
            changes["training.initial_workdir"] = str(self.folder(training.start, seed))
        return Config.from_dict(changed(self._values, changes))

    def sha256(self, training: Training, seed: int) -> str:
        """Returns the checksum that identifies a training.

        It covers the text, the settings that differ from the defaults, and the training that it
        starts from. It depends on no path, and on no setting that lines hold separately, as the
        beam.
        """
        changes = differences(dataclasses.asdict(self.config(training, seed)), _DEFAULTS)
        settings = {key: value for key, value in changes.items() if key not in _ELSEWHERE}
        start = self.sha256(training.start, seed) if training.start else None
        text = json.dumps([self._text, settings, start], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def folder(self, training: Training, seed: int) -> Path:
        """Returns the workdir of a training."""
        return self._runs / f"{training.name}-{seed}-{self.sha256(training, seed)[:8]}"

    def train(self, training: Training, seed: int) -> Trained:
        """Runs or resumes a training, after the one that it starts from.

        Raises:
            UserError: its config is impossible or does not match its folder.
            Stopped: a signal stopped it; it is saved.
        """
        if training.start:
            self.train(training.start, seed)
        run, config = Run(self.folder(training, seed)), self.config(training, seed)
        check_continues(run, config)
        if max(run.saved_steps, default=0) < config.training.steps:
            print(f"training {training.name}, seed {seed}, in {run.path}", flush=True)
            with run.writing():
                train_model(config, run)
        return Trained(training, run, self.sha256(training, seed), config.decoding)


def changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy of nested values with some "section.key" changed."""
    copy = {section: dict(entries) for section, entries in values.items()}
    for name, value in changes.items():
        section, key = name.split(".")
        copy[section][key] = value
    return copy


def differences(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Returns "section.key" and value of the entries of `values` that differ in `others`."""
    return {
        f"{section}.{key}": value
        for section, entries in values.items()
        for key, value in entries.items()
        if value != others[section][key]
    }


_DEFAULTS = dataclasses.asdict(Config.from_dict(base.get_config().to_dict()))
