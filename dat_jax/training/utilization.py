# SPDX-License-Identifier: Apache-2.0
"""Model FLOPs utilization (MFU): FLOP/s of the model over the peak FLOP/s of the devices.

Counts every matrix product that the objective needs for real tokens, once forward and twice
backward. Does not count recomputation, the second pass of gradient scaling, or padding.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from dat_jax.config import Config, ModelConfig
from dat_jax.flops import classifier, computed_block, halting_unit, memory_projections
from dat_jax.model.transformer import Transformer

_BACKWARD = 2  # products per forward product: one for the gradient of each operand

# Peak FLOP/s of dense bfloat16 products per device, without sparsity, from the makers' data sheets.
_PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,  # v5p
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(kinds: Sequence[str], dtype: str) -> float | None:
    """Returns the total peak FLOP/s of devices of these kinds, computing in `dtype`.

    Returns None for unknown kinds and for float32 on a GPU, where the peak depends on JAX's matmul
    precision. A TPU multiplies in bfloat16 for both dtypes.
    """
    rounding = [kind for kind in kinds if dtype == "bfloat16" or kind.startswith("TPU")]
    peaks = [_PEAKS[kind] for kind in rounding if kind in _PEAKS]
    return sum(peaks) if len(peaks) == len(kinds) else None


def step_flops(
    model: Transformer,
    config: Config,
    source: Int[np.ndarray, " B"],
    target: Int[np.ndarray, " B"],
    step: int = 1,
) -> int:
    """Returns the model FLOPs of a training step (the first by default) for these lengths."""
    forward = _encoder(config.model, source) + _decoder(model, config, source, target)
    learns = config.exit.trains != "head_alone" or step <= config.exit.start_step
    return forward * (1 + _BACKWARD * learns)


def _encoder(config: ModelConfig, source: Int[np.ndarray, " B"]) -> int:
    """Returns the FLOPs of one forward pass of the encoder over sources of these lengths."""
    dim, hidden = config.encoder_dim, config.encoder_ff_dim
    products = (8 * dim**2 + 4 * hidden * dim) * np.sum(source)
    attention = 4 * dim * np.sum(source**2)
    return config.encoder_layers * int(products + attention)


def _decoder(
    model: Transformer,
    config: Config,
    source: Int[np.ndarray, " B"],
    target: Int[np.ndarray, " B"],
) -> int:
    """Returns the FLOPs of forward passes of decoder, classifiers and exit head.

    Mixed training makes one pass for each sampled exit sequence.
    """
    settings, tokens = config.model, int(np.sum(target))
    products = tokens * computed_block(settings, source_length=0, step=0)
    products += memory_projections(settings, int(np.sum(source)))
    attention = 4 * settings.decoder_dim * int(np.sum(target * (target + source)))
    of_token = _classifiers(config) * classifier(settings, model.target_vocabulary_size)
    of_token += _exit_head(settings)
    samples = config.training.exit_samples if config.training.mode == "mixed" else 1
    return samples * (settings.decoder_layers * (products + attention) + tokens * of_token)


def _classifiers(config: Config) -> int:
    """Returns the classifiers run per token; mixed training needs one if all exits share it."""
    one_for_all = config.model.classifiers == "shared" and config.model.norm == "post"
    if config.training.mode == "mixed" and one_for_all:
        return 1
    return len(config.model.exit_depths)


def _exit_head(config: ModelConfig) -> int:
    """Returns the FLOPs of the exit head per token; a sentence's head is negligible."""
    return {
        "none": 0,
        "sequence_multinomial": 0,
        "token_multinomial": 2 * config.decoder_layers * config.decoder_dim,
        "token_geometric": (config.decoder_layers - 1) * halting_unit(config),
    }[config.exit_head]
