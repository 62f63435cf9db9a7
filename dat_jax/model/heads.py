# SPDX-License-Identifier: Apache-2.0
"""Exit heads: one linear layer from a state to exit logits (paper, section 3); in halting units
also a hidden layer, if `model.halting_hidden` says so, which the paper does not have.

`ExitHead` holds the weights; the functions below apply them, in training and in decoding. Under
pre-norm the residual stream is not normalised, so a head gets the standardised state; a LayerNorm's
scale and bias would add nothing before a linear layer.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dat_jax.config import ModelConfig
from dat_jax.types import Array, Bool, Float


class ExitHead(nn.Module):
    """Holds the weights of the head that `config.exit_head` names."""

    config: ModelConfig

    @nn.compact
    def __call__(self) -> dict[str, Any]:
        """Returns `kernel` [M, U] and `bias` [U]. U is N for a multinomial head; for halting units
        it is 1 if shared, else N - 1. With a hidden layer, M is its width, and `hidden` has the
        layer of each unit."""
        config = self.config
        of_sequence = config.exit_head == "sequence_multinomial"
        dim = config.encoder_dim if of_sequence else config.decoder_dim
        outputs, bias = config.decoder_layers, 0.0
        if config.exit_head == "token_geometric":
            outputs = 1 if config.halting_weights == "shared" else config.decoder_layers - 1
            bias = config.halting_bias
        hidden = {}
        if config.exit_head == "token_geometric" and config.halting_hidden:
            hidden = {"hidden": _HiddenLayers(outputs, dim, config.halting_hidden, name="hidden")()}
            dim = config.halting_hidden
        return hidden | {
            "kernel": self.param("kernel", nn.initializers.xavier_uniform(), (dim, outputs)),
            "bias": self.param("bias", nn.initializers.constant(bias), (outputs,)),
        }


class _HiddenLayers(nn.Module):
    """Holds the weights of the hidden layers of all halting units."""

    units: int
    dim: int
    width: int

    @nn.compact
    def __call__(self) -> dict[str, Array]:
        """Returns `kernel` [U, D, width] and `bias` [U, width]; units first, so that a decoder
        reads one unit's weights from one piece of memory."""
        init, shape = nn.initializers.xavier_uniform(batch_axis=0), (self.units, self.width)
        return {
            "kernel": self.param("kernel", init, (self.units, self.dim, self.width)),
            "bias": self.param("bias", nn.initializers.zeros, shape),
        }


def sequence_logits(
    weights: dict[str, Array], memory: Float[Array, "B S E"], source_mask: Bool[Array, "B S"]
) -> Float[Array, "B N"]:
    """Returns the logits of a sentence's depth, from the mean of its memory (equation 8)."""
    real = source_mask[..., None]
    total = jnp.sum(memory.astype(jnp.float32), axis=1, where=real)
    return _linear(weights, total / jnp.maximum(jnp.sum(real, axis=1), 1))


def token_logits(
    config: ModelConfig, weights: dict[str, Array], state: Float[Array, "*B D"]
) -> Float[Array, "*B N"]:
    """Returns the logits of a token's depth, from its state after block 1 (equation 11)."""
    return _linear(weights, _normalised(config, state))


def halting_logit(
    config: ModelConfig, weights: dict[str, Any], depth: int, state: Float[Array, "*B D"]
) -> Float[Array, "*B"]:
    """Returns the logit of halting after block `depth` < N (equation 12).

    A hidden layer has ReLUs, as the blocks' feed-forward layers do; a GELU would add a
    transcendental function for each row and depth of a decode.
    """
    unit, x = 0 if config.halting_weights == "shared" else depth - 1, _normalised(config, state)
    if "hidden" in weights:
        x = jax.nn.relu(_linear(jax.tree.map(lambda leaf: leaf[unit], weights["hidden"]), x))
    own = {name: weights[name][..., unit : unit + 1] for name in ("kernel", "bias")}
    return _linear(own, x)[..., 0]


def _normalised(config: ModelConfig, state: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    state = state.astype(jnp.float32)
    return jax.nn.standardize(state, epsilon=1e-6) if config.norm == "pre" else state


def _linear(weights: dict[str, Array], x: Float[Array, "*B M"]) -> Float[Array, "*B U"]:
    # A TPU rounds to bfloat16 by default; this product is small, and the exits depend on it.
    y = jnp.matmul(x, weights["kernel"], precision=jax.lax.Precision.HIGHEST)
    return y + jnp.broadcast_to(weights["bias"], y.shape)
