# SPDX-License-Identifier: Apache-2.0
"""The encoder, always run at full depth (paper, section 2)."""

import flax.linen as nn
import jax.numpy as jnp

from dat_jax.config import ModelConfig
from dat_jax.model.blocks import EncoderBlock, stacked
from dat_jax.types import Array, Bool, Float


class Encoder(nn.Module):
    """A stack of encoder blocks over embedded source tokens."""

    config: ModelConfig

    def setup(self) -> None:
        self.blocks = EncoderBlock(self.config)
        if self.config.norm == "pre":
            self.final_norm = nn.LayerNorm(dtype=jnp.dtype(self.config.dtype))

    def __call__(
        self, x: Float[Array, "B S E"], mask: Bool[Array, "B S"], *, deterministic: bool
    ) -> Float[Array, "B S E"]:
        """Returns the memory of embedded tokens; `mask` is true on real tokens."""

        def run_block(block: EncoderBlock, x: Array, _: None) -> tuple[Array, None]:
            return block(x, mask[:, None, :], deterministic=deterministic), None

        run_blocks = stacked(run_block, self.config, self.config.encoder_layers)
        memory, _ = run_blocks(self.blocks, x, None)
        return self.final_norm(memory) if self.config.norm == "pre" else memory
