# SPDX-License-Identifier: Apache-2.0
"""The sections of a config: frozen dataclasses.

Each checks its values when it is built and raises a `UserError` that names the bad key.
"""

from dat_jax.config.config import Config
from dat_jax.config.data import DataConfig, Normalization
from dat_jax.config.decoding import DecodingConfig
from dat_jax.config.model import ExitConfig, ExitHead, ModelConfig
from dat_jax.config.training import (
    BestBy,
    LossWeights,
    OptimizerConfig,
    Schedule,
    Sharding,
    TrainingConfig,
)

__all__ = [
    "BestBy",
    "Config",
    "DataConfig",
    "DecodingConfig",
    "ExitConfig",
    "ExitHead",
    "LossWeights",
    "ModelConfig",
    "Normalization",
    "OptimizerConfig",
    "Schedule",
    "Sharding",
    "TrainingConfig",
]
