# SPDX-License-Identifier: Apache-2.0
"""The encoder block and the decoder block (paper, section 2, as in Vaswani et al.)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from dat_jax.config import ModelConfig
from dat_jax.model.attention import (
    Attend,
    Attended,
    AttendedForm,
    Attention,
    StateKernels,
    attend_to,
)
from dat_jax.types import Array, Bool, Float


class Residual(nn.Module):
    """The residual connection around a sub-layer: `leave(x, sub_layer(enter(x)))`.

    LayerNorm follows the sum (post-norm) or precedes the sub-layer (pre-norm).
    """

    config: ModelConfig

    def setup(self) -> None:
        self.norm = nn.LayerNorm(dtype=jnp.dtype(self.config.dtype))
        self.dropout = nn.Dropout(self.config.dropout)

    def enter(self, x: Float[Array, "*B M"]) -> Float[Array, "*B M"]:
        """Returns the input of the sub-layer: `x`, normalised under pre-norm."""
        return self.norm(x) if self.config.norm == "pre" else x

    def leave(
        self, x: Float[Array, "*B M"], update: Float[Array, "*B M"], *, deterministic: bool
    ) -> Float[Array, "*B M"]:
        """Adds the sub-layer's output to `x`; normalises the sum under post-norm."""
        x = x + self.dropout(update, deterministic=deterministic)
        return self.norm(x) if self.config.norm == "post" else x


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them."""

    dim: int
    hidden_dim: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "*B M"], *, deterministic: bool) -> Float[Array, "*B M"]:
        init = nn.initializers.xavier_uniform()
        x = nn.relu(nn.Dense(self.hidden_dim, kernel_init=init, dtype=self.dtype)(x))
        x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
        return nn.Dense(self.dim, kernel_init=init, dtype=self.dtype)(x)


class EncoderBlock(nn.Module):
    """Self-attention over the source, then a feed-forward layer."""

    config: ModelConfig

    def setup(self) -> None:
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.self_attention = Attention(
            config.encoder_dim, config.encoder_heads, config.attention_dropout, dtype
        )
        self.feed_forward = FeedForward(
            config.encoder_dim, config.encoder_ff_dim, config.activation_dropout, dtype
        )
        self.self_residual, self.ff_residual = Residual(config), Residual(config)

    def __call__(
        self, x: Float[Array, "B S E"], mask: Bool[Array, "B 1 S"], *, deterministic: bool
    ) -> Float[Array, "B S E"]:
        entered = self.self_residual.enter(x)
        attended = self.self_attention.attended(entered, "keys_values")
        attend = attend_to(attended, mask)
        update = self.self_attention(entered, attend, deterministic=deterministic)
        x = self.self_residual.leave(x, update, deterministic=deterministic)
        update = self.feed_forward(self.ff_residual.enter(x), deterministic=deterministic)
        return self.ff_residual.leave(x, update, deterministic=deterministic)


class BlockKernels(NamedTuple):
    """The kernels of a decoder block for attention to states."""

    self_attention: StateKernels
    memory_attention: StateKernels


class DecoderBlock(nn.Module):
    """Self-attention, attention over the memory, then a feed-forward layer.

    The positions to attend to are arguments: training passes whole sequences, from `self_attended`
    and `memory_attended`; decoding passes its cache.
    """

    config: ModelConfig

    def setup(self) -> None:
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.self_attention, self.memory_attention = (
            Attention(config.decoder_dim, config.decoder_heads, config.attention_dropout, dtype)
            for _ in range(2)
        )
        self.feed_forward = FeedForward(
            config.decoder_dim, config.decoder_ff_dim, config.activation_dropout, dtype
        )
        self.self_residual, self.memory_residual, self.ff_residual = (
            Residual(config) for _ in range(3)
        )

    def self_attended(self, x: Float[Array, "B T D"], form: AttendedForm) -> Attended:
        """Returns the block's inputs in the form that self-attention attends to."""
        return self.self_attention.attended(self.self_residual.enter(x), form)

    def memory_attended(self, memory: Float[Array, "B S E"], form: AttendedForm) -> Attended:
        """Returns the encoder output in the form that the block attends to."""
        return self.memory_attention.attended(memory, form)

    def state_kernels(self) -> BlockKernels:
        """Returns the kernels for attention to states; compute them once, outside of any loop."""
        return BlockKernels(
            self.self_attention.state_kernels(), self.memory_attention.state_kernels()
        )

    def __call__(
        self,
        x: Float[Array, "B T D"],
        attend_self: Attend,
        attend_memory: Attend,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B T D"]:
        """Computes the states after this block from the states before it (equation 1)."""
        update = self.self_attention(
            self.self_residual.enter(x), attend_self, deterministic=deterministic
        )
        x = self.self_residual.leave(x, update, deterministic=deterministic)
        update = self.memory_attention(
            self.memory_residual.enter(x), attend_memory, deterministic=deterministic
        )
        x = self.memory_residual.leave(x, update, deterministic=deterministic)
        update = self.feed_forward(self.ff_residual.enter(x), deterministic=deterministic)
        return self.ff_residual.leave(x, update, deterministic=deterministic)


def stacked(
    run_block: Callable[[Any, Any, Any], tuple[Any, Any]], config: ModelConfig, layers: int
) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """Scans `run_block(block, carry, x) -> (carry, y)` over the blocks of a stack.

    Parameters, `x` and `y` have a leading axis of blocks. With rematerialisation, only the carries
    are stored, and the backward pass runs each block again.
    """
    if config.rematerialisation == "blocks":
        run_block = nn.remat(run_block, prevent_cse=False)  # CSE cannot merge across a loop
    return nn.scan(
        run_block,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        length=layers,
    )
