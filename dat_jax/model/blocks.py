# SPDX-License-Identifier: Apache-2.0
"""One encoder block and one decoder block (paper, section 2: Vaswani et al.'s)."""

import flax.linen as nn
import jax.numpy as jnp

from dat_jax.config import ModelConfig
from dat_jax.model.attention import Attention, StateKernels
from dat_jax.types import Array, Bool, Float


class Residual(nn.Module):
    """The residual connection around a sub-layer: `leave(x, sub_layer(enter(x)))`.

    Its LayerNorm stands after the sum (post-norm) or before the sub-layer (pre-norm).
    """

    config: ModelConfig

    def setup(self) -> None:
        self.norm = nn.LayerNorm(dtype=jnp.dtype(self.config.dtype))
        self.dropout = nn.Dropout(self.config.dropout)

    def enter(self, x: Float[Array, "*B M"]) -> Float[Array, "*B M"]:
        """The input of the sub-layer: `x`, normalised in pre-norm."""
        return self.norm(x) if self.config.norm == "pre" else x

    def leave(
        self, x: Float[Array, "*B M"], update: Float[Array, "*B M"], *, deterministic: bool
    ) -> Float[Array, "*B M"]:
        """Adds what the sub-layer made of it to `x`; normalises the sum in post-norm."""
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
            config.encoder_dim, config.encoder_ff_dim, config.dropout, dtype
        )
        self.self_residual, self.ff_residual = Residual(config), Residual(config)

    def __call__(
        self, x: Float[Array, "B S E"], mask: Bool[Array, "B 1 S"], *, deterministic: bool
    ) -> Float[Array, "B S E"]:
        entered = self.self_residual.enter(x)
        keys, values = self.self_attention.keys_values(entered)
        update = self.self_attention(entered, keys, values, mask, deterministic=deterministic)
        x = self.self_residual.leave(x, update, deterministic=deterministic)
        update = self.feed_forward(self.ff_residual.enter(x), deterministic=deterministic)
        return self.ff_residual.leave(x, update, deterministic=deterministic)


class DecoderBlock(nn.Module):
    """Self-attention, attention over the memory, feed-forward.

    The keys and values that it attends to are arguments: training projects whole sequences with
    `self_keys_values` and `memory_keys_values`, a decoder reads them from its cache.
    """

    config: ModelConfig

    def setup(self) -> None:
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.self_attention, self.memory_attention = (
            Attention(config.decoder_dim, config.decoder_heads, config.attention_dropout, dtype)
            for _ in range(2)
        )
        self.feed_forward = FeedForward(
            config.decoder_dim, config.decoder_ff_dim, config.dropout, dtype
        )
        self.self_residual, self.memory_residual, self.ff_residual = (
            Residual(config) for _ in range(3)
        )

    def self_keys_values(
        self, x: Float[Array, "B T D"]
    ) -> tuple[Float[Array, "B H T K"], Float[Array, "B H T K"]]:
        """The block's own projections of its inputs, for later positions to attend to."""
        return self.self_attention.keys_values(self.self_residual.enter(x))

    def memory_keys_values(
        self, memory: Float[Array, "B S E"]
    ) -> tuple[Float[Array, "B H S K"], Float[Array, "B H S K"]]:
        """The block's own projections of the encoder output."""
        return self.memory_attention.keys_values(memory)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        self_keys_values: tuple[Float[Array, "B H P K"], Float[Array, "B H P K"]],
        self_mask: Bool[Array, "#B T P"],
        memory_keys_values: tuple[Float[Array, "B H S K"], Float[Array, "B H S K"]],
        memory_mask: Bool[Array, "B 1 S"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B T D"]:
        """Computes the states after this block from the states before it (equation 1)."""
        update = self.self_attention(
            self.self_residual.enter(x), *self_keys_values, self_mask, deterministic=deterministic
        )
        x = self.self_residual.leave(x, update, deterministic=deterministic)
        update = self.memory_attention(
            self.memory_residual.enter(x),
            *memory_keys_values,
            memory_mask,
            deterministic=deterministic,
        )
        x = self.memory_residual.leave(x, update, deterministic=deterministic)
        update = self.feed_forward(self.ff_residual.enter(x), deterministic=deterministic)
        return self.ff_residual.leave(x, update, deterministic=deterministic)

    def state_kernels(self) -> StateKernels:
        """The kernels by which `step` attends to states."""
        return self.self_attention.state_kernels()

    def step(
        self,
        x: Float[Array, "B D"],
        self_states: Float[Array, "B P D"],
        self_mask: Bool[Array, "B P"],
        self_kernels: StateKernels,
        memory_keys_values: tuple[Float[Array, "B H S K"], Float[Array, "B H S K"]],
        memory_mask: Bool[Array, "B S"],
    ) -> Float[Array, "B D"]:
        """Computes what `__call__` does (equation 1) for one token a row, without dropout and
        without projecting the states that it attends to.

        `self_states` are states that entered this block, the row's own among them; see
        `Attention.of_states`. The keys and values of the memory are given, as to `__call__`.
        """
        residual = self.self_residual
        update = self.self_attention.of_states(
            residual.enter(x), residual.enter(self_states), self_mask, self_kernels
        )
        x = residual.leave(x, update, deterministic=True)
        update = self.memory_attention(
            self.memory_residual.enter(x)[:, None],
            *memory_keys_values,
            memory_mask[:, None],
            deterministic=True,
        )
        x = self.memory_residual.leave(x, update[:, 0], deterministic=True)
        update = self.feed_forward(self.ff_residual.enter(x), deterministic=True)
        return self.ff_residual.leave(x, update, deterministic=True)
