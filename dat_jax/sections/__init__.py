# SPDX-License-Identifier: Apache-2.0
"""The sections of a config: frozen dataclasses.

Each checks its values when it is built and raises a `UserError` that names the bad key.
"""

from dat_jax.sections.data import DataConfig, Normalization
from dat_jax.sections.decoding import DecodingConfig
from dat_jax.sections.model import ExitConfig, ExitHead, ModelConfig
from dat_jax.sections.training import (
    LossWeights,
    OptimizerConfig,
    Schedule,
    Sharding,
    TrainingConfig,
)

__all__ = [
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
