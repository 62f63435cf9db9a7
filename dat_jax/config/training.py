# SPDX-License-Identifier: Apache-2.0
"""The sections `optimizer` and `training`."""

import dataclasses
import math
import re
from typing import Literal

from dat_jax.config.schema import require, require_at_least, require_rate

LossWeights = Literal["1", "n", "sqrt_n", "1/sqrt_n", "1/n"]
Sharding = Literal["replicated", "fsdp"]
BestBy = Literal["loss", "exit_loss", "bleu"]
Schedule = Literal["inverse_sqrt", "constant", "linear", "cosine"]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam, its learning rate, and clipping."""

    learning_rate: float
    warmup_steps: int
    schedule: Schedule
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    clip_norm: float

    def __post_init__(self) -> None:
        require_at_least("optimizer", self, 0, "learning_rate weight_decay clip_norm")
        require_at_least("optimizer", self, 1, "warmup_steps")
        require_rate("optimizer", self, "beta1 beta2")
        require(
            0 < self.epsilon < math.inf,
            f"optimizer.epsilon is {self.epsilon}: must be above 0, and finite",
        )

    @property
    def falls_to_zero(self) -> bool:
        """True if the learning rate falls to 0, so that each step's depends on `training.steps`."""
        return self.schedule in ("linear", "cosine")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The length of training, its batches, losses and checkpoints."""

    steps: int
    batch_tokens: int
    num_shapes: int
    microbatches: int
    sharding: Sharding
    mode: Literal["aligned", "mixed"]
    exit_samples: int
    exit_sampling: Literal["per_token", "per_sequence"]
    gradient_scaling: float
    gradient_from_above: float
    loss_weights: LossWeights
    label_smoothing: float
    seed: int
    log_every: int
    validate_every: int
    checkpoint_every: int
    keep_checkpoints: int
    best_by: BestBy
    patience: int
    bleu_every: int
    bleu_sentences: int
    bleu_exits: tuple[int, ...]
    skip_nonfinite: int
    initial_workdir: str
    profile: str
    checkpoint_folder: str

    def __post_init__(self) -> None:
        require_at_least("training", self, 0, "seed gradient_scaling skip_nonfinite")
        require_at_least("training", self, 0, "patience bleu_every bleu_sentences")
        require(
            self.seed < 1 << 32,
            f"training.seed is {self.seed}: must be below 2**32",
        )
        require(
            0 <= self.gradient_from_above <= 1,
            f"training.gradient_from_above is {self.gradient_from_above}: must be in [0, 1]",
        )
        require_at_least(
            "training",
            self,
            1,
            "steps batch_tokens num_shapes microbatches exit_samples log_every validate_every "
            "checkpoint_every keep_checkpoints",
        )
        require_rate("training", self, "label_smoothing")
        self._check_best()
        for key, off in {"gradient_scaling": 0.0, "gradient_from_above": 1.0}.items():
            require(
                self.mode == "aligned" or getattr(self, key) == off,
                f"training.{key} is {getattr(self, key)}: must be {off} unless training.mode is "
                "aligned",
            )
        require(
            not self.profile or len(self.profiled_steps) > 0,
            f"training.profile is {self.profile!r}: must be START-STOP, two steps from 1 to "
            f"training.steps, {self.steps}, or empty",
        )
        require(
            not self.checkpoint_folder or self.checkpoint_folder.startswith(("/", "~", "gs://")),
            f"training.checkpoint_folder is {self.checkpoint_folder!r}: must be a path that starts "
            "with / or ~, gs://BUCKET/FOLDER, or empty",
        )

    def _check_best(self) -> None:
        """Checks that what the best checkpoint is chosen by is measured, at steps that are saved.

        Raises:
            UserError: it is not.
        """
        by_bleu = self.best_by == "bleu"
        require(
            not by_bleu or self.bleu_every > 0,
            "training.best_by is bleu and training.bleu_every is 0: set it to a number of steps",
        )
        key = "bleu_every" if by_bleu else "validate_every"
        set_key = "best_by" if by_bleu else "patience"
        require(
            not (by_bleu or self.patience) or getattr(self, key) % self.checkpoint_every == 0,
            f"training.{set_key} is {getattr(self, set_key)}: training.{key}, "
            f"{getattr(self, key)}, must be a multiple of training.checkpoint_every, "
            f"{self.checkpoint_every}, so that what is measured is saved",
        )

    @property
    def profiled_steps(self) -> range:
        """The steps that `profile` names; empty if it is empty or out of range."""
        ends = re.fullmatch(r"(\d+)-(\d+)", self.profile)
        first, last = map(int, ends.groups()) if ends else (1, 0)
        return range(first, last + 1) if 1 <= first <= last <= self.steps else range(0)
