# SPDX-License-Identifier: Apache-2.0
"""Multi-head attention whose keys and values are arguments: a cache is an ordinary array."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dat_jax.types import Array, Bool, Float


class StateKernels(NamedTuple):
    """Kernels that `Attention.of_states` needs of the projections that it does without."""

    key: jax.Array  # [H, K, M]
    value: jax.Array  # [H, M, K]


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
        self, x: Float[Array, "B P M"]
    ) -> tuple[Float[Array, "B H P K"], Float[Array, "B H P K"]]:
        """Projects the positions that can be attended to; heads before positions, as the products
        of attention read them."""
        return jnp.swapaxes(self.key(x), 1, 2), jnp.swapaxes(self.value(x), 1, 2)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        keys: Float[Array, "B H P K"],
        values: Float[Array, "B H P K"],
        mask: Bool[Array, "#B #T P"],
        *,
        deterministic: bool,
    ) -> Float[Array, "B T D"]:
        """Mixes `values` for each position of `x`, looking only where `mask` is true."""
        query = jnp.swapaxes(self._scaled_query(x), 1, 2)
        scores = _product("bhpk,bhtk->bhpt", keys, query)
        weights = self._weights(jnp.swapaxes(scores, 2, 3), mask[:, None])
        weights = self.weight_dropout(weights, deterministic=deterministic)
        mixed = _product("bhtp,bhpk->bhtk", weights, values)
        return self.output(jnp.swapaxes(mixed, 1, 2))

    def state_kernels(self) -> StateKernels:
        """The kernels of keys and values in the order in which `of_states` reads them: to be made
        once, outside of any loop."""
        key, value = (part.variables["params"]["kernel"] for part in (self.key, self.value))
        return StateKernels(
            jnp.transpose(key, (1, 2, 0)).astype(self.dtype),
            jnp.transpose(value, (1, 0, 2)).astype(self.dtype),
        )

    def of_states(
        self,
        x: Float[Array, "B D"],
        states: Float[Array, "B P M"],
        mask: Bool[Array, "B P"],
        kernels: StateKernels,
    ) -> Float[Array, "B D"]:
        """Attends as `__call__` does, with one query a row, to the keys and values of `states`, and
        without projecting these.

        A query meets a state by way of the key's kernel, taken backwards; values are projected
        once they are mixed. A bias of the keys shifts all scores of a query alike, which softmax
        does not see; that of the values passes through, as the weights sum to 1.
        """
        query = jnp.einsum("bhk,hkm->hbm", self._scaled_query(x), kernels.key)
        scores = _product("bpm,hbm->bph", states, query)
        weights = self._weights(jnp.swapaxes(scores, 1, 2), mask[:, None])
        mixed = jnp.einsum("bhp,bpm->bhm", weights, states)
        values = jnp.einsum("bhm,hmk->bhk", mixed, kernels.value)
        bias = self.value.variables["params"]["bias"].astype(self.dtype)
        return self.output(values + bias[None])

    def _scaled_query(self, x: Float[Array, "*B D"]) -> Float[Array, "*B H K"]:
        return self.query(x) * (self.dim // self.heads) ** -0.5

    def _weights(
        self, scores: Float[Array, "*B P"], mask: Bool[Array, "*#B P"]
    ) -> Float[Array, "*B P"]:
        """Softmax in float32 over the positions where `mask` is true."""
        scores = jnp.where(mask, scores.astype(jnp.float32), jnp.finfo(jnp.float32).min)
        return jax.nn.softmax(scores).astype(self.dtype)


def _product(formula: str, *operands: Array) -> Array:
    """A product in the order of its formula.

    Left alone, XLA merges the transposition that follows and swaps the operands; with few queries,
    on CPU, that takes three to eight times as long.
    """
    return jax.lax.optimization_barrier(jnp.einsum(formula, *operands))
