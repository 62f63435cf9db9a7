# SPDX-License-Identifier: Apache-2.0
"""Token embeddings with sinusoidal positions."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from dat_jax.types import Array, Float, Int


class Embedding(nn.Module):
    """Embeds token ids and adds their positions; a tied classifier shares `table`."""

    vocabulary_size: int
    dim: int
    dropout: float
    dtype: jnp.dtype

    def setup(self) -> None:
        self.table = self.param(
            "table",
            nn.initializers.normal(self.dim**-0.5),
            (self.vocabulary_size, self.dim),
        )
        self.output_dropout = nn.Dropout(self.dropout)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "#B T"],
        *,
        deterministic: bool,
    ) -> Float[Array, "B T M"]:
        """Embeds `tokens` at `positions` of their sentences."""
        x = self.table[tokens] * self.dim**0.5 + sinusoids(positions, self.dim)
        return self.output_dropout(x.astype(self.dtype), deterministic=deterministic)


def sinusoids(positions: Int[Array, "B T"], dim: int) -> Float[Array, "B T M"]:
    """Returns sines in the first half of the channels and cosines in the second; the periods range
    from 2 pi to 2e4 pi."""
    frequencies = np.exp(-np.log(1e4) * np.arange(dim // 2) / max(dim // 2 - 1, 1))
    angles = positions[..., None] * jnp.asarray(frequencies, jnp.float32)[None, None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
