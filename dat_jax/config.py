# SPDX-License-Identifier: Apache-2.0
"""Configuration as frozen dataclasses: the border where nested dictionaries become typed values.

`configs/base.py` holds the defaults and explains every key; here stand the types and the rules.
Each class checks its own values when it is made, so that whoever holds a config holds a valid one.
"""

import dataclasses
import difflib
import json
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from dat_jax.errors import UserError

T = TypeVar("T")

LossWeights = Literal["1", "n", "sqrt_n", "1/sqrt_n", "1/n"]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UserError(message)


def _require_at_least(section: str, config: object, minimum: int | float, names: str) -> None:
    for name in names.split():
        value = getattr(config, name)
        finite = "" if math.isfinite(value) else ", and finite"
        _require(
            minimum <= value < math.inf,
            f"{section}.{name} is {value}: must be {minimum} or more{finite}",
        )


def _require_rate(section: str, config: object, names: str) -> None:
    for name in names.split():
        value = getattr(config, name)
        _require(0 <= value < 1, f"{section}.{name} is {value}: must be in [0, 1)")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the text comes from and how it becomes token ids."""

    source: str
    source_language: str
    target_language: str
    vocabulary: Literal["joint", "separate"]
    vocabulary_size: int
    pieces: Literal["unigram", "bpe"]
    max_length: int
    seed: int

    def __post_init__(self) -> None:
        kind, colon, _ = self.source.partition(":")
        _require(
            colon == ":" and kind in ("generated", "text", "tfds"),
            f"data.source is {self.source!r}: must be generated:[PAIRS], text:DIR or tfds:NAME",
        )
        _require_at_least("data", self, 5, "vocabulary_size")
        _require_at_least("data", self, 2, "max_length")
        _require_at_least("data", self, 0, "seed")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The encoder-decoder Transformer and its exits (paper, sections 2 and 3)."""

    num_layers: int
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
    embeddings: Literal["tied", "untied"]
    dropout: float
    attention_dropout: float
    dtype: Literal["float32", "bfloat16"]

    def __post_init__(self) -> None:
        _require_at_least("model", self, 1, "num_layers encoder_layers")
        for side in ("encoder", "decoder"):
            _require_at_least("model", self, 1, f"{side}_dim {side}_ff_dim {side}_heads")
            dim, heads = getattr(self, f"{side}_dim"), getattr(self, f"{side}_heads")
            _require(dim % 2 == 0, f"model.{side}_dim is {dim}: must be even")
            _require(
                dim % heads == 0,
                f"model.{side}_dim is {dim}: must be a multiple of model.{side}_heads, {heads}",
            )
        _require_rate("model", self, "dropout attention_dropout")
        if self.embeddings == "tied":
            _require(
                self.encoder_dim == self.decoder_dim,
                "model.embeddings is tied: model.encoder_dim and model.decoder_dim must be equal, "
                f"not {self.encoder_dim} and {self.decoder_dim}",
            )
            _require(
                self.classifiers == "shared",
                "model.embeddings is tied: model.classifiers must be shared",
            )

    @property
    def exit_depths(self) -> tuple[int, ...]:
        """The depths that have an output classifier, lowest first."""
        return tuple(range(1, self.num_layers + 1)) if self.exits == "all" else (self.num_layers,)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam with inverse-square-root warm-up and clipping."""

    learning_rate: float
    warmup_steps: int
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    clip_norm: float

    def __post_init__(self) -> None:
        _require_at_least("optimizer", self, 0, "learning_rate weight_decay")
        _require_at_least("optimizer", self, 1, "warmup_steps")
        _require_rate("optimizer", self, "beta1 beta2")
        for name in ("epsilon", "clip_norm"):
            value = getattr(self, name)
            _require(value > 0, f"optimizer.{name} is {value}: must be above 0")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How long to train on what loss, and what to keep."""

    steps: int
    batch_tokens: int
    num_shapes: int
    accumulation: int
    loss_weights: LossWeights
    label_smoothing: float
    seed: int
    log_every: int
    validate_every: int
    checkpoint_every: int
    keep_checkpoints: int

    def __post_init__(self) -> None:
        _require_at_least("training", self, 0, "seed")
        _require_at_least(
            "training",
            self,
            1,
            "steps batch_tokens num_shapes accumulation log_every validate_every checkpoint_every "
            "keep_checkpoints",
        )
        _require_rate("training", self, "label_smoothing")


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """How to search for a translation, and when to exit."""

    policy: str
    engine: Literal["lockstep"]
    beam_size: int
    length_penalty: float
    max_length_ratio: float
    max_length_extra: int
    batch_size: int
    average_checkpoints: int

    def __post_init__(self) -> None:
        _require_at_least(
            "decoding", self, 1, "beam_size batch_size average_checkpoints max_length_extra"
        )
        _require_at_least("decoding", self, 0, "length_penalty max_length_ratio")


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """What `decode.py` translates, and where the results go."""

    split: Literal["valid", "test"]
    input: str
    reference: str
    output: str

    def __post_init__(self) -> None:
        _require(
            bool(self.input) or not self.reference,
            "reference is set and input is not: a split has its own references",
        )


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that makes a run: what `train.py` reads and `workdir/config.json` keeps."""

    data: DataConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    decoding: DecodingConfig

    def __post_init__(self) -> None:
        if self.model.embeddings == "tied":
            _require(
                self.data.vocabulary == "joint",
                "model.embeddings is tied: data.vocabulary must be joint",
            )
        _require(
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
        """Reads the `config.json` that `save` wrote.

        Raises:
            UserError: the file is missing, is not JSON, or holds no valid config.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{path} does not exist: train a model into this workdir first"
            ) from None
        except ValueError:
            raise UserError(
                f"{path} is not valid JSON: restore it or use another workdir"
            ) from None
        _require(
            isinstance(values, Mapping),
            f"{path} holds no config: restore it or use another workdir",
        )
        return cls.from_dict(values)

    def save(self, path: Path) -> None:
        """Writes the config as indented JSON."""
        write_text(path, json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a whole file or, if interrupted, leaves the one that was there."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def from_dict(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Builds the frozen dataclass `cls`, nested ones included, from dictionaries.

    Args:
        cls: the dataclass.
        values: one entry per field.
        prefix: the path of `values` in the whole config, for messages.

    Raises:
        UserError: a key is unknown or missing, or a value has the wrong type or is impossible.
    """
    types = typing.get_type_hints(cls)
    for key in values:
        if key not in types:
            close = difflib.get_close_matches(key, types, n=1)
            hint = f": did you mean {prefix}{close[0]}?" if close else ""
            raise UserError(f"unknown config key {prefix}{key}{hint}")
    missing = [key for key in types if key not in values]
    _require(not missing, f"missing config key {prefix}{missing[0] if missing else ''}")
    return cls(**{key: _convert(values[key], types[key], prefix + key) for key in types})


def _convert(value: Any, kind: Any, name: str) -> Any:
    """Checks `value` against the annotation `kind`; an int will do where a float is asked for."""
    if dataclasses.is_dataclass(kind):
        _require(isinstance(value, Mapping), f"config.{name} is {value!r}: must be a section")
        return from_dict(typing.cast(type, kind), value, prefix=f"{name}.")
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        _require(value in choices, f"{name} is {value!r}: must be one of {', '.join(choices)}")
        return value
    if kind is float and type(value) is int:
        return float(value)
    _require(type(value) is kind, f"{name} is {value!r}: must be of type {kind.__name__}")
    return value
