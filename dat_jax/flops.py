# SPDX-License-Identifier: Apache-2.0
"""FLOPs that the decoder needs for a token, by the paper's formula (appendix B).

A linear layer from d_in to d_out costs 2 d_in d_out; non-linearities, norms and residual sums are
not counted, nor is the encoder.
"""

import numpy as np
from jaxtyping import Int

from dat_jax.config import ModelConfig


def computed_block(config: ModelConfig, source_length: int, step: int) -> int:
    """FC: one block at the `step`-th token, from 1, without the projections of the memory."""
    dim, hidden = config.decoder_dim, config.decoder_ff_dim
    return 12 * dim**2 + 4 * hidden * dim + 4 * step * dim + 4 * source_length * dim


def memory_projections(config: ModelConfig, source_length: int) -> int:
    """The keys and values of the memory for one block, made when it first runs for a sentence."""
    return 4 * source_length * config.decoder_dim * config.encoder_dim


def classifier(config: ModelConfig, vocabulary_size: int) -> int:
    """One product with the classifier's table."""
    return 2 * vocabulary_size * config.decoder_dim


def fixed_exits(
    config: ModelConfig, vocabulary_size: int, source_length: int, exits: Int[np.ndarray, " T"]
) -> int:
    """All FLOPs for a translation whose tokens all exit at one depth: nothing is copied upward.

    Args:
        config: the model's dimensions.
        vocabulary_size: of the target.
        source_length: source tokens, EOS counted.
        exits: the depth of each token of the translation, EOS counted.
    """
    steps = np.arange(1, len(exits) + 1)
    blocks = sum(
        int(depth) * computed_block(config, source_length, int(step))
        for depth, step in zip(exits, steps, strict=True)
    )
    first_calls = int(np.max(exits, initial=0)) * memory_projections(config, source_length)
    return blocks + first_calls + len(exits) * classifier(config, vocabulary_size)
