# SPDX-License-Identifier: Apache-2.0
"""The sections of a config, each a frozen dataclass with rules of its own.

Each class checks its values when it is made, and raises a `UserError` that names the bad one.
"""

import dataclasses
import math
import re
from typing import Literal

from dat_jax.schema import require, require_at_least, require_rate

LossWeights = Literal["1", "n", "sqrt_n", "1/sqrt_n", "1/n"]
Normalization = Literal["nmt_nfkc", "nfc", "none"]
Sharding = Literal["replicated", "fsdp"]
Schedule = Literal["inverse_sqrt", "constant", "linear", "cosine"]
ExitHead = Literal["none", "sequence_multinomial", "token_multinomial", "token_geometric"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The source of the text, and its way to token ids."""

    source: str
    source_language: str
    target_language: str
    vocabulary: Literal["joint", "separate"]
    vocabulary_size: int
    pieces: Literal["unigram", "bpe"]
    source_normalization: Normalization
    target_normalization: Normalization
    max_length: int
    max_length_ratio: float
    valid_every: int
    seed: int

    def __post_init__(self) -> None:
        kind, colon, _ = self.source.partition(":")
        require(
            colon == ":" and kind in ("generated", "text", "tfds"),
            f"data.source is {self.source!r}: must be generated:[PAIRS], text:DIR or tfds:NAME",
        )
        require(
            kind != "tfds" or self.source_language != self.target_language,
            f"data.source_language and data.target_language are both {self.source_language!r}, "
            "one and the same side of a translation: name two",
        )
        require_at_least("data", self, 5, "vocabulary_size")
        require_at_least("data", self, 2, "max_length")
        require_at_least("data", self, 0, "seed")
        for key, least in {"max_length_ratio": 1, "valid_every": 2}.items():
            value = getattr(self, key)
            require(
                value == 0 or least <= value < math.inf,
                f"data.{key} is {value}: must be {least} or more, or 0",
            )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The encoder-decoder Transformer and its exits (paper, sections 2 and 3)."""

    decoder_layers: int
    encoder_layers: int
    encoder_dim: int
    encoder_ff_dim: int
    encoder_heads: int
    decoder_dim: int
    decoder_ff_dim: int
    decoder_heads: int
    norm: Literal["post", "pre"]
    exits: Literal["all", "last"]
    classifiers: Literal["shared", "per_exit"]
    embeddings: Literal["tied", "target", "untied"]
    dropout: float
    attention_dropout: float
    activation_dropout: float
    layer_drop: float
    layer_drop_rates: Literal["constant", "rising"]
    dtype: Literal["float32", "bfloat16"]
    rematerialisation: Literal["none", "blocks"]
    exit_head: ExitHead
    halting_weights: Literal["shared", "per_depth"]
    halting_bias: float

    def __post_init__(self) -> None:
        require_at_least("model", self, 1, "decoder_layers encoder_layers")
        for side in ("encoder", "decoder"):
            require_at_least("model", self, 1, f"{side}_dim {side}_ff_dim {side}_heads")
            dim, heads = getattr(self, f"{side}_dim"), getattr(self, f"{side}_heads")
            require(dim % 2 == 0, f"model.{side}_dim is {dim}: must be even")
            require(
                dim % heads == 0,
                f"model.{side}_dim is {dim}: must be a multiple of model.{side}_heads, {heads}",
            )
        require_rate("model", self, "dropout attention_dropout activation_dropout layer_drop")
        require(
            math.isfinite(self.halting_bias),
            f"model.halting_bias is {self.halting_bias}: must be finite",
        )
        if self.embeddings == "tied":
            require(
                self.encoder_dim == self.decoder_dim,
                "model.embeddings is tied: model.encoder_dim and model.decoder_dim must be equal, "
                f"not {self.encoder_dim} and {self.decoder_dim}",
            )
        require(
            self.embeddings == "untied" or self.classifiers == "shared",
            f"model.embeddings is {self.embeddings}: model.classifiers must be shared",
        )
        if self.exit_head != "none":
            require(
                self.exits == "all" and self.decoder_layers > 1,
                f"model.exit_head is {self.exit_head}: model.exits must be all and "
                "model.decoder_layers 2 or more, for it to have a choice",
            )

    @property
    def exit_depths(self) -> tuple[int, ...]:
        """The depths that have an output classifier, lowest first."""
        if self.exits == "last":
            return (self.decoder_layers,)
        return tuple(range(1, self.decoder_layers + 1))


@dataclasses.dataclass(frozen=True)
class ExitConfig:
    """Targets of the exit head, and its training (paper, sections 3.2 and 3.3)."""

    oracle: Literal["likelihood", "correctness"]
    exit_penalty: float
    oracle_smoothing: float
    sequence_oracle: Literal["mean", "sum"]
    sequence_loss: Literal["per_token", "once"]
    loss_weight: float
    trains: Literal["model_and_head", "head", "head_alone"]
    start_step: int

    def __post_init__(self) -> None:
        require_at_least("exit", self, 0, "exit_penalty oracle_smoothing loss_weight start_step")


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
        """True if the rate falls to 0 by `training.steps`, and so each step's depends on those."""
        return self.schedule in ("linear", "cosine")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The length of training, its loss, and the checkpoints to keep."""

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
    distillation: float
    loss_weights: LossWeights
    label_smoothing: float
    seed: int
    log_every: int
    validate_every: int
    checkpoint_every: int
    keep_checkpoints: int
    skip_nonfinite: int
    initial_workdir: str
    profile: str
    checkpoint_folder: str

    def __post_init__(self) -> None:
        require_at_least("training", self, 0, "seed gradient_scaling skip_nonfinite")
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
        require_rate("training", self, "label_smoothing distillation")
        for key, off in {
            "gradient_scaling": 0.0,
            "gradient_from_above": 1.0,
            "distillation": 0.0,
        }.items():
            require(
                self.mode == "aligned" or getattr(self, key) == off,
                f"training.{key} is {getattr(self, key)}: training.mode must be aligned, where one "
                "block serves many losses",
            )
        require(
            not self.profile or len(self.profiled_steps) > 0,
            f"training.profile is {self.profile!r}: must be START-STOP, two steps from 1 to "
            f"training.steps, {self.steps}, or empty",
        )
        require(
            not self.checkpoint_folder or self.checkpoint_folder.startswith(("/", "~", "gs://")),
            f"training.checkpoint_folder is {self.checkpoint_folder!r}: must be a path from / or ~ "
            "on, gs://BUCKET/FOLDER, or empty",
        )

    @property
    def profiled_steps(self) -> range:
        """The steps that `profile` names; none if it is empty, or names others than a run makes."""
        ends = re.fullmatch(r"(\d+)-(\d+)", self.profile)
        first, last = map(int, ends.groups()) if ends else (1, 0)
        return range(first, last + 1) if 1 <= first <= last <= self.steps else range(0)


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """The search for a translation, and the policy by which tokens exit."""

    policy: str
    engine: Literal["auto", "continuous", "lockstep"]
    report_policies: tuple[str, ...]
    beam_size: int
    length_penalty: float
    max_length_ratio: float
    max_length_extra: int
    batch_size: int
    cohort_size: int
    pool_size: int
    average_checkpoints: int
    bleu_tokenizer: Literal["language", "13a", "zh", "char", "intl", "none"]
    max_source_length: int

    def __post_init__(self) -> None:
        require_at_least(
            "decoding", self, 1, "beam_size batch_size average_checkpoints max_length_extra"
        )
        require_at_least(
            "decoding",
            self,
            0,
            "length_penalty max_length_ratio max_source_length cohort_size pool_size",
        )
        require(
            self.max_source_length != 1,
            "decoding.max_source_length is 1: must be 2 or more, for </s> is counted, or 0",
        )
