# SPDX-License-Identifier: Apache-2.0
"""The share of what the devices can do at most that goes into the model: its FLOPs in a second over
the peak of the devices (MFU).

Work of the model is every product that the objective needs, once forward and twice backward, of
real tokens alone. What is computed again to save memory, the second pass of gradient scaling and
padding take time and are no work of the model.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from dat_jax.config import Config
from dat_jax.flops import classifier, computed_block, memory_projections
from dat_jax.model.transformer import Transformer
from dat_jax.sections import ModelConfig

_BACKWARD = 2  # for each product one for either of its operands

# Dense bfloat16 products, without sparsity, as the makers state them: FLOP/s of a device.
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
    """The FLOP/s that devices of these kinds, one each, reach together at most in `dtype`.

    None if that is not known: of other kinds, and of float32 on a GPU, where it depends on how JAX
    is set to multiply. A TPU multiplies in bfloat16 in either case.
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
    """The FLOPs of a training step, by default the first, that are work of the model, on pairs of
    these lengths."""
    forward = _encoder(config.model, source) + _decoder(model, config, source, target)
    learns = config.exit.trains != "head_alone" or step <= config.exit.start_step
    return forward * (1 + _BACKWARD * learns)


def _encoder(config: ModelConfig, source: Int[np.ndarray, " B"]) -> int:
    """One forward pass over sources of these lengths."""
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
    """One forward pass of all blocks, the classifiers and the exit head, over pairs of these
    lengths; mixed training makes one for each sequence of exits that it draws."""
    settings, tokens = config.model, int(np.sum(target))
    products = tokens * computed_block(settings, source_length=0, step=0)
    products += memory_projections(settings, int(np.sum(source)))
    attention = 4 * settings.decoder_dim * int(np.sum(target * (target + source)))
    of_token = _classifiers(config) * classifier(settings, model.target_vocabulary_size)
    of_token += _exit_head(settings)
    samples = config.training.exit_samples if config.training.mode == "mixed" else 1
    return samples * (settings.decoder_layers * (products + attention) + tokens * of_token)


def _classifiers(config: Config) -> int:
    """The number of classifiers of a token: in mixed training one, if all exits have the same."""
    one_for_all = config.model.classifiers == "shared" and config.model.norm == "post"
    if config.training.mode == "mixed" and one_for_all:
        return 1
    return len(config.model.exit_depths)


def _exit_head(config: ModelConfig) -> int:
    """The exit head, for a token; a sentence's head is less than that."""
    return {
        "none": 0,
        "sequence_multinomial": 0,
        "token_multinomial": 2 * config.decoder_layers * config.decoder_dim,
        "token_geometric": 2 * (config.decoder_layers - 1) * config.decoder_dim,
    }[config.exit_head]
