# SPDX-License-Identifier: Apache-2.0
"""Configuration: sections, rules across sections, and `config.json`.

`configs/base.py` explains every key. A config checks its values when it is built and raises a
`UserError` that names the bad one, so every `Config` object is valid.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dat_jax.config.data import DataConfig
from dat_jax.config.decoding import DecodingConfig
from dat_jax.config.model import ExitConfig, ModelConfig
from dat_jax.config.schema import from_dict, require
from dat_jax.config.training import OptimizerConfig, TrainingConfig
from dat_jax.config.versions import read_settings
from dat_jax.errors import UserError
from dat_jax.storage.stamped import write_stamped


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run, as `train.py` reads them and `WORKDIR/config.json` stores them."""

    data: DataConfig
    model: ModelConfig
    exit: ExitConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    decoding: DecodingConfig

    def __post_init__(self) -> None:
        if self.model.exit_head == "none":
            require(
                self.exit.trains == "model_and_head",
                f"exit.trains is {self.exit.trains} and model.exit_head is none: choose a head, or "
                "set exit.trains to model_and_head",
            )
            require(
                self.training.best_by != "exit_loss",
                "training.best_by is exit_loss and model.exit_head is none: choose loss or bleu",
            )
        for depth in self.training.bleu_exits:
            require(
                depth in self.model.exit_depths,
                f"training.bleu_exits has {depth}: must be depths with an exit, of "
                f"{', '.join(map(str, self.model.exit_depths))}",
            )
        if self.training.mode == "mixed":
            require(
                self.model.exits == "all" and self.model.exit_head == "none",
                "training.mode is mixed: model.exits must be all and model.exit_head none; train "
                "an exit head in a second, aligned run, with training.initial_workdir",
            )
        require(
            not self.optimizer.falls_to_zero or self.optimizer.warmup_steps < self.training.steps,
            f"optimizer.schedule is {self.optimizer.schedule}: optimizer.warmup_steps, "
            f"{self.optimizer.warmup_steps}, must be below training.steps, {self.training.steps}",
        )
        if self.model.embeddings == "tied":
            require(
                self.data.vocabulary == "joint",
                "model.embeddings is tied: data.vocabulary must be joint",
            )
        require(
            self.decoding.average_checkpoints <= self.training.keep_checkpoints,
            f"decoding.average_checkpoints is {self.decoding.average_checkpoints}: must be at most "
            f"training.keep_checkpoints, {self.training.keep_checkpoints}",
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Builds a config from nested dictionaries.

        Raises:
            UserError: a key is unknown or missing, or a value has the wrong type or is impossible.
        """
        return from_dict(cls, values)

    @classmethod
    def load(cls, path: Path) -> "Config":
        """Reads a `config.json` that `save` of this or an older version wrote.

        Raises:
            UserError: the file is missing, not JSON, not a valid config, or of a later format.
        """
        try:
            values, _, version = read_settings(path)
        except FileNotFoundError:
            raise UserError(
                f"{path} does not exist: train a model into this workdir first"
            ) from None
        except ValueError:
            raise UserError(
                f"{path} is not valid JSON: restore it or use another workdir"
            ) from None
        try:
            return cls.from_dict(values)
        except UserError as error:
            raise UserError(f"{path}, written by dat_jax {version}: {error}") from None

    def save(self, path: Path) -> None:
        """Writes the config as indented JSON."""
        write_stamped(path, dataclasses.asdict(self))
