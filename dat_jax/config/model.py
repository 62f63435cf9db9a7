# SPDX-License-Identifier: Apache-2.0
"""The sections `model` and `exit`."""

import dataclasses
import math
from typing import Literal

from dat_jax.config.schema import require, require_at_least, require_rate

ExitHead = Literal["none", "sequence_multinomial", "token_multinomial", "token_geometric"]


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
    halting_hidden: int

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
        require_at_least("model", self, 0, "halting_hidden")
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
                "model.decoder_layers 2 or more, or there is no exit to choose",
            )

    @property
    def exit_depths(self) -> tuple[int, ...]:
        """The depths that have an output classifier, lowest first."""
        if self.exits == "last":
            return (self.decoder_layers,)
        return tuple(range(1, self.decoder_layers + 1))


@dataclasses.dataclass(frozen=True)
class ExitConfig:
    """Targets and loss of the exit head (paper, sections 3.2 and 3.3)."""

    oracle: Literal["likelihood", "correctness", "agreement"]
    exit_penalty: float
    oracle_smoothing: float
    sequence_oracle: Literal["mean", "sum"]
    sequence_loss: Literal["per_token", "once"]
    loss_weight: float
    trains: Literal["model_and_head", "head", "head_alone"]
    start_step: int

    def __post_init__(self) -> None:
        require_at_least("exit", self, 0, "exit_penalty oracle_smoothing loss_weight start_step")
