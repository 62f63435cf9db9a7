# SPDX-License-Identifier: Apache-2.0
"""The whole model: encoder, decoder, classifiers and exit head."""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dat_jax.config import ModelConfig
from dat_jax.model.classifiers import Classifiers, classify, weights_of_exit
from dat_jax.model.decoder import Decoder
from dat_jax.model.embedding import Embedding
from dat_jax.model.encoder import Encoder
from dat_jax.model.heads import ExitHead, halting_logit, sequence_logits, token_logits
from dat_jax.types import Array, Bool, Float, Int, Params, PRNGKeyArray


class Transformer(nn.Module):
    """An encoder-decoder Transformer with an output classifier at each of its exits."""

    config: ModelConfig
    source_vocabulary_size: int
    target_vocabulary_size: int

    def setup(self) -> None:
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.target_embedding = Embedding(
            self.target_vocabulary_size, config.decoder_dim, config.dropout, dtype
        )
        self.source_embedding = (
            self.target_embedding
            if config.embeddings == "tied"
            else Embedding(self.source_vocabulary_size, config.encoder_dim, config.dropout, dtype)
        )
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.classifiers = Classifiers(config, self.target_vocabulary_size)
        self.exit_head = ExitHead(config)

    def encode(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B S E"]:
        """Returns the memory of source tokens; `source_mask` is true on real ones."""
        positions = jnp.arange(source.shape[1])[None]
        x = self.source_embedding(source, positions, deterministic=deterministic)
        return self.encoder(x, source_mask, deterministic=deterministic)

    def embed(
        self,
        inputs: Int[Array, "B T"],
        positions: Int[Array, "#B T"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B T D"]:
        """Returns the decoder's states before its first block."""
        return self.target_embedding(inputs, positions, deterministic=deterministic)

    def states(
        self,
        inputs: Int[Array, "B T"],
        memory: Float[Array, "B S E"],
        source_mask: Bool[Array, "B S"],
        *,
        exit_depth: Int[Array, "B T"] | None = None,
        gradient_scaling: float = 0.0,
        gradient_from_above: float = 1.0,
        deterministic: bool = True,
    ) -> Float[Array, "N B T D"]:
        """Returns the decoder's states after each block; `inputs` are the target shifted right.

        `exit_depth`, `gradient_scaling` and `gradient_from_above` are those of `Decoder`.
        """
        positions = jnp.arange(inputs.shape[1])[None]
        x = self.embed(inputs, positions, deterministic=deterministic)
        return self.decoder(
            x,
            memory,
            source_mask,
            exit_depth=exit_depth,
            gradient_scaling=gradient_scaling,
            gradient_from_above=gradient_from_above,
            deterministic=deterministic,
        )

    def classifier_weights(self) -> dict[str, Any]:
        """Returns the weights of all classifiers; see `dat_jax.model.classifiers`."""
        untied = self.config.embeddings == "untied"
        return self.classifiers(None if untied else self.target_embedding.table)

    def exit_head_weights(self) -> dict[str, Any]:
        """Returns the weights of the exit head, which the model must have; see
        `dat_jax.model.heads`."""
        return self.exit_head()

    def exit_logits(
        self,
        memory: Float[Array, "B S E"],
        source_mask: Bool[Array, "B S"],
        states: Float[Array, "N B T D"],
    ) -> Float[Array, "B *T U"]:
        """Returns the exit head's logits (paper, sections 3.2 and 3.3): [B, N] for sentences, or
        [B, T, N] for tokens, or halting logits [B, T, L]."""
        config, weights = self.config, self.exit_head_weights()
        if config.exit_head == "sequence_multinomial":
            return sequence_logits(weights, memory, source_mask)
        if config.exit_head == "token_multinomial":
            return token_logits(config, weights, states[0])
        return jnp.stack(
            [
                halting_logit(config, weights, n, states[n - 1])
                for n in range(1, config.decoder_layers)
            ],
            axis=-1,
        )

    def __call__(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        inputs: Int[Array, "B T"],
    ) -> Float[Array, "X B T V"]:
        """Returns the logits of all X exits at once; large, so training and decoding do not use
        it."""
        memory = self.encode(source, source_mask)
        states = self.states(inputs, memory, source_mask)
        if self.is_initializing() and self.config.exit_head != "none":
            self.exit_head_weights()
        weights = self.classifier_weights()
        return jnp.stack(
            [
                classify(weights_of_exit(weights, index), states[depth - 1])
                for index, depth in enumerate(self.config.exit_depths)
            ]
        )


def count_parameters(model: Transformer) -> dict[str, int]:
    """Returns the number of parameters of each part of `model`, without making them."""
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    return {
        part: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
        for part, tree in shapes.items()
    }


@partial(jax.jit, static_argnums=0)
def init_params(model: Transformer, key: PRNGKeyArray) -> Params:
    """Initialises the parameters of `model`, in float32."""
    token, real = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    return model.init(key, token, real, token)["params"]
