# SPDX-License-Identifier: Apache-2.0
"""Trainings of a suite: what each changes in a config, how it is known again, where it lies."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from configs import base
from dat_jax.config import Config
from dat_jax.data.sources import open_source
from dat_jax.runs.workdir import Run
from dat_jax.storage.checksums import Checksum
from train import train_model

# What a training's results do not depend on, or what their lines say beside it.
_ELSEWHERE = {
    *("data.source", "model.rematerialisation", "training.initial_workdir", "training.profile"),
    *("training.checkpoint_folder", "training.sharding", "training.log_every"),
    *("training.validate_every", "decoding.policy", "decoding.beam_size"),
    *("decoding.report_policies", "decoding.batch_size"),
}


@dataclasses.dataclass(frozen=True)
class Training:
    """A training by name: what it changes, and another whose parameters it begins with, if any."""

    name: str
    changes: dict[str, Any]  # of "section.key" to a value
    start: "Training | None" = None


class Trained(NamedTuple):
    """A training that was made."""

    training: Training
    run: Run
    sha256: str


class Trainer:
    """Makes the trainings of a suite, each in a folder of its own, or goes on with them."""

    def __init__(self, values: Mapping[str, Any], runs: Path) -> None:
        """Takes the nested dictionary of a config, which all trainings change, and a folder.

        Raises:
            UserError: the config is impossible, or its text is missing.
        """
        self._values, self._runs = values, runs
        text = open_source(Config.from_dict(values).data).files
        self._text = [Checksum.of(path).sha256 for path in text]

    def config(self, training: Training, seed: int) -> Config:
        """The config of a training.

        Raises:
            UserError: it is impossible.
        """
        values = changed(self._values, training.changes | {"training.seed": seed})
        if training.start:
            start = self.folder(training.start, seed)
            values = changed(values, {"training.initial_workdir": str(start)})
        return Config.from_dict(values)

    def sha256(self, training: Training, seed: int) -> str:
        """The checksum of all that makes a training: its text, its settings where they are not the
        defaults, and the training that it begins with. No path is part of it, nor how its results
        are decoded."""
        changes = differences(dataclasses.asdict(self.config(training, seed)), _DEFAULTS)
        settings = {key: value for key, value in changes.items() if key not in _ELSEWHERE}
        start = self.sha256(training.start, seed) if training.start else None
        text = json.dumps([self._text, settings, start], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def folder(self, training: Training, seed: int) -> Path:
        """The workdir of a training."""
        return self._runs / f"{training.name}-{seed}-{self.sha256(training, seed)[:8]}"

    def train(self, training: Training, seed: int) -> Trained:
        """Trains, or goes on with it; the training that it begins with first.

        Raises:
            UserError: its config is impossible, or does not fit what lies in its folder.
            Stopped: a signal asked for it; what was trained is saved.
        """
        if training.start:
            self.train(training.start, seed)
        run, config = Run(self.folder(training, seed)), self.config(training, seed)
        run.check_same(config)
        if max(run.saved_steps, default=0) < config.training.steps:
            print(f"training {training.name}, seed {seed}, in {run.path}", flush=True)
            with run.writing():
                train_model(config, run)
        return Trained(training, run, self.sha256(training, seed))


def changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A nested dictionary with some of its entries, "section.key", changed."""
    copy = {section: dict(entries) for section, entries in values.items()}
    for name, value in changes.items():
        section, key = name.split(".")
        copy[section][key] = value
    return copy


def differences(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """The entries, "section.key", of `values` that are not so in `others`."""
    return {
        f"{section}.{key}": value
        for section, entries in values.items()
        for key, value in entries.items()
        if value != others[section][key]
    }


_DEFAULTS = dataclasses.asdict(Config.from_dict(base.get_config().to_dict()))
