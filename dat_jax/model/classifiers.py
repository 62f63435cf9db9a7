# SPDX-License-Identifier: Apache-2.0
"""The output classifiers of the exits (equation 3).

Their weights are a tree, `{"shared": {...}, "per_exit": {...}}`; leaves of `per_exit` have a
leading axis of exits. `weights_of_exit` merges both into the weights of one exit: `table` [V, D]
and, under pre-norm, `scale` and `bias` [D] of the exit's own LayerNorm, because the residual stream
is not normalised there.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dat_jax.config import ModelConfig
from dat_jax.types import Array, Float


class Classifiers(nn.Module):
    """Holds the weights of all exits' classifiers, which have no biases, as in the paper."""

    config: ModelConfig
    vocabulary_size: int

    @nn.compact
    def __call__(self, tied_table: Float[Array, "V D"] | None) -> dict[str, Any]:
        """Returns the tree of weights; uses `tied_table`, if given, for all exits."""
        dim, exits = self.config.decoder_dim, len(self.config.exit_depths)
        shared, per_exit = {}, {}
        init = nn.initializers.normal(dim**-0.5)
        if tied_table is not None:
            shared["table"] = tied_table
        elif self.config.classifiers == "shared":
            shared["table"] = self.param("table", init, (self.vocabulary_size, dim))
        else:
            per_exit["table"] = self.param("table", init, (exits, self.vocabulary_size, dim))
        if self.config.norm == "pre":
            per_exit["scale"] = self.param("scale", nn.initializers.ones, (exits, dim))
            per_exit["bias"] = self.param("bias", nn.initializers.zeros, (exits, dim))
        return {"shared": shared, "per_exit": per_exit}


def weights_of_exit(weights: dict[str, Any], index: int) -> dict[str, Array]:
    """Returns the weights of the classifier at `exit_depths[index]`."""
    return weights["shared"] | jax.tree.map(lambda leaf: leaf[index], weights["per_exit"])


def classify(weights: dict[str, Array], state: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
    """Returns the logits of one exit in float32, from its merged weights and decoder states."""
    return _product(weights["table"], normalised(weights, state))


def normalised(weights: dict[str, Array], state: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Returns the input of an exit's table: under pre-norm, states after the exit's LayerNorm."""
    if "scale" not in weights:
        return state
    standard = jax.nn.standardize(state.astype(jnp.float32), epsilon=1e-6)
    scale, bias = (jnp.broadcast_to(weights[x], state.shape) for x in ("scale", "bias"))
    return (standard * scale + bias).astype(state.dtype)


@jax.custom_vjp
def _product(table: Float[Array, "V D"], state: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
    """Multiplies in the dtype of the states with float32 sums; so do its gradients.

    Without this, the float32 gradient of the logits would make them products in float32.
    """
    return _sums(state, table.astype(state.dtype), axes=(-1, -1))


def _product_forward(table: Array, state: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(table, state), (table, state)


def _product_backward(operands: tuple[Array, Array], to_logits: Array) -> tuple[Array, Array]:
    table, state = operands
    to_logits, rows = to_logits.astype(state.dtype), tuple(range(state.ndim - 1))
    to_table = _sums(to_logits, state, axes=(rows, rows))
    to_state = _sums(to_logits, table.astype(state.dtype), axes=table.ndim - 1)
    return to_table, to_state.astype(state.dtype)


_sums = partial(jnp.tensordot, preferred_element_type=jnp.float32)
_product.defvjp(_product_forward, _product_backward)
