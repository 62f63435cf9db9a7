# SPDX-License-Identifier: Apache-2.0
"""Multi-head attention whose keys and values are arguments: a cache is an ordinary array."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dat_jax.types import Array, Bool, Float


class Attention(nn.Module):
    """Scaled dot-product attention of `heads` heads; queries and output have width `dim`."""

    dim: int
    heads: int
    dropout: float
    dtype: jnp.dtype

    def setup(self) -> None:
        def projection() -> nn.DenseGeneral:
            return nn.DenseGeneral(
                features=(self.heads, self.dim // self.heads),
                kernel_init=nn.initializers.xavier_uniform(),
                dtype=self.dtype,
            )

        self.query, self.key, self.value = projection(), projection(), projection()
        self.output = nn.DenseGeneral(
            features=self.dim,
            axis=(-2, -1),
            kernel_init=nn.initializers.xavier_uniform(),
            dtype=self.dtype,
        )
        self.weight_dropout = nn.Dropout(self.dropout)

    def keys_values(
        self, x: Float[Array, "B S M"]
    ) -> tuple[Float[Array, "B S H K"], Float[Array, "B S H K"]]:
        """Projects the positions that can be attended to."""
        return self.key(x), self.value(x)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        keys: Float[Array, "B S H K"],
        values: Float[Array, "B S H K"],
        mask: Bool[Array, "#B #T S"],
        *,
        deterministic: bool,
    ) -> Float[Array, "B T D"]:
        """Mixes `values` for each position of `x`, looking only where `mask` is true."""
        scale = (self.dim // self.heads) ** -0.5
        scores = jnp.einsum("bthk,bshk->bhts", self.query(x) * scale, keys).astype(jnp.float32)
        scores = jnp.where(mask[:, None], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores).astype(self.dtype)
        weights = self.weight_dropout(weights, deterministic=deterministic)
        return self.output(jnp.einsum("bhts,bshk->bthk", weights, values))
