# SPDX-License-Identifier: Apache-2.0
"""The decoder: N blocks with an exit possible after each (paper, section 3)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dat_jax.config import ModelConfig
from dat_jax.model.attention import attend_to
from dat_jax.model.blocks import DecoderBlock, stacked
from dat_jax.model.gradient_scaling import block_scales, scale_gradient
from dat_jax.model.layer_drop import draw_kept, drop_rates
from dat_jax.types import Array, Bool, Float, Int


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
        exit_depth: Int[Array, "B T"] | None = None,
        gradient_scaling: float = 0.0,
        gradient_from_above: float = 1.0,
        deterministic: bool,
    ) -> Float[Array, "N B T D"]:
        """Runs all blocks on whole sequences; returns the states after each (equation 1).

        Args:
            x: the states before the first block.
            memory: the encoder output.
            memory_mask: true on real source tokens.
            exit_depth: the exit of each token; above it, its last computed state is copied, and
                keys and values are projections of the copy (paper, section 3.1). By default all
                tokens run all blocks.
            gradient_scaling: gamma, see `block_scales`; 0 turns it off.
            gradient_from_above: factor on the gradient that a block gets through the block above;
                the gradient from m blocks above is multiplied by its m-th power.
            deterministic: whether to turn dropout off.
        """
        causal = jnp.tri(x.shape[1], dtype=bool)[None]
        free_block = DecoderBlock(self.config, parent=None)

        def run_block(
            block: DecoderBlock, x: Array, of_depth: tuple[Array, Array, Array]
        ) -> tuple[Array, Array]:
            depth, scale, drop_rate = of_depth
            if self.is_initializing():
                after = _whole_sequence(block, x, memory, causal, memory_mask, deterministic)
                return after, after
            rngs = {} if deterministic else {"dropout": block.make_rng("dropout")}
            runs = None if exit_depth is None else depth <= exit_depth
            if self.config.layer_drop and not deterministic:
                kept = draw_kept(block.make_rng("dropout"), drop_rate, len(x))
                runs = kept if runs is None else runs & kept

            def run(params: Any) -> Any:
                arguments = (x, memory, causal, memory_mask, deterministic)
                after: Any = free_block.apply(
                    {"params": params}, *arguments, method=_whole_sequence, rngs=rngs
                )
                return after if runs is None else jnp.where(runs[..., None], after, x)

            params = block.variables["params"]
            after = run(params)
            whole = gradient_from_above == 1
            handed_up = after if whole else scale_gradient(after, gradient_from_above)
            if not gradient_scaling:
                return handed_up, after
            return handed_up, run(jax.tree.map(lambda p: scale_gradient(p, scale), params))

        depths = jnp.arange(1, self.config.decoder_layers + 1)
        run_blocks = stacked(run_block, self.config, self.config.decoder_layers)
        scales, rates = block_scales(gradient_scaling, depths), drop_rates(self.config, depths)
        _, states = run_blocks(self.blocks, x, (depths, scales, rates))
        return states


def _whole_sequence(
    block: DecoderBlock,
    x: Array,
    memory: Array,
    self_mask: Array,
    memory_mask: Array,
    deterministic: bool,
) -> Array:
    return block(
        x,
        attend_to(block.self_attended(x, "keys_values"), self_mask),
        attend_to(block.memory_attended(memory, "keys_values"), memory_mask[:, None, :]),
        deterministic=deterministic,
    )
