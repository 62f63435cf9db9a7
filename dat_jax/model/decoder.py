# SPDX-License-Identifier: Apache-2.0
"""The decoder: N blocks whose every state can be an exit (paper, section 3)."""

import flax.linen as nn
import jax.numpy as jnp

from dat_jax.config import ModelConfig
from dat_jax.model.blocks import DecoderBlock
from dat_jax.types import Array, Bool, Float


class Decoder(nn.Module):
    """A stack of N decoder blocks, their parameters stacked on a leading axis."""

    config: ModelConfig

    def setup(self) -> None:
        self.blocks = DecoderBlock(self.config)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        memory: Float[Array, "B S E"],
        memory_mask: Bool[Array, "B S"],
        *,
        deterministic: bool,
    ) -> Float[Array, "N B T D"]:
        """Runs all blocks on whole sequences and returns the states after each (equation 1)."""
        causal = jnp.tri(x.shape[1], dtype=bool)[None]

        def run_block(block: DecoderBlock, x: Array, _: None) -> tuple[Array, Array]:
            x = block(
                x,
                block.self_keys_values(x),
                causal,
                block.memory_keys_values(memory),
                memory_mask[:, None, :],
                deterministic=deterministic,
            )
            return x, x

        scan = nn.scan(
            run_block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=self.config.num_layers,
        )
        _, states = scan(self.blocks, x, None)
        return states
