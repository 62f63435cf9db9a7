# SPDX-License-Identifier: Apache-2.0
"""Multi-head attention whose keys and values are arguments, so that a cache is an ordinary array.

There are two forms. `KeysValues` are projected once for all later queries. `States` are cached
unprojected: the projection kernels are applied to the query instead. Nothing is projected, and with
one query per row the products are matrix-matrix, which keeps a matrix unit busy.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dat_jax.types import Array, Bool, Float


class KeysValues(NamedTuple):
    """Projected keys and values; heads come before positions, as the products read them."""

    keys: jax.Array  # [B, H, P, K]
    values: jax.Array  # [B, H, P, K]


class States(NamedTuple):
    """Unprojected states to attend to."""

    states: jax.Array  # [B, P, M]


Attended = KeysValues | States
AttendedForm = Literal["keys_values", "states"]

Drop = Callable[[Array], Array]
Attend = Callable[[Array, Drop], Array]
"""Attends with queries [B, T, H, K]; the second argument applies dropout to the weights."""


class StateKernels(NamedTuple):
    """The projections of keys and values, laid out for attention to states."""

    key: jax.Array  # [H, K, M]
    value: jax.Array  # [H, M, K]
    value_bias: jax.Array  # [H, K]


class Attention(nn.Module):
    """Scaled dot-product attention with `heads` heads; queries and output have width `dim`."""

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

    def attended(self, x: Float[Array, "B P M"], form: AttendedForm) -> Attended:
        """Returns the positions of `x` in a form to cache and attend to."""
        if form == "states":
            return States(x)
        return KeysValues(jnp.swapaxes(self.key(x), 1, 2), jnp.swapaxes(self.value(x), 1, 2))

    def state_kernels(self) -> StateKernels:
        """Returns the kernels for attention to states; compute them once, outside of any loop."""
        key, value = (part.variables["params"] for part in (self.key, self.value))
        return StateKernels(
            jnp.transpose(key["kernel"], (1, 2, 0)).astype(self.dtype),
            jnp.transpose(value["kernel"], (1, 0, 2)).astype(self.dtype),
            value["bias"].astype(self.dtype),
        )

    def __call__(
        self, x: Float[Array, "B T D"], attend: Attend, *, deterministic: bool
    ) -> Float[Array, "B T D"]:
        """Attends from each position of `x` with `attend`, which `attend_to` returns."""
        query = self.query(x) * (self.dim // self.heads) ** -0.5
        drop = partial(self.weight_dropout, deterministic=deterministic)
        return self.output(attend(query, drop))


def attend_to(
    attended: Attended, mask: Bool[Array, "#B #T P"], kernels: StateKernels | None = None
) -> Attend:
    """Returns attention to these positions where `mask` is true; `States` need `kernels`."""
    if isinstance(attended, KeysValues):
        return partial(_mix, attended, mask)
    assert kernels is not None
    return partial(_mix_states, attended, mask, kernels)


def _mix(
    attended: KeysValues, mask: Bool[Array, "#B #T P"], query: Float[Array, "B T H K"], drop: Drop
) -> Float[Array, "B T H K"]:
    scores = _scores("bhpk,bhtk->bhpt", attended.keys, jnp.swapaxes(query, 1, 2))
    weights = _weights(jnp.swapaxes(scores, 2, 3), mask[:, None], query.dtype, drop)
    mixed = _product("bhtp,bhpk->bhtk", weights, attended.values)
    return jnp.swapaxes(mixed, 1, 2)


def _mix_states(
    attended: States,
    mask: Bool[Array, "#B #T P"],
    kernels: StateKernels,
    query: Float[Array, "B T H K"],
    drop: Drop,
) -> Float[Array, "B T H K"]:
    """Computes the same as `_mix` without projecting the states.

    Applies the key kernel to the query, transposed, and the value kernel after mixing. The key bias
    shifts all scores of a query equally, which softmax ignores; the value bias passes through,
    because the weights sum to 1.
    """
    batch, length, heads, _ = query.shape
    by_kernel = jnp.einsum("bthk,hkm->bthm", query, kernels.key)
    by_kernel = by_kernel.reshape(batch, length * heads, -1)
    scores = _scores("bpm,bqm->bpq", attended.states, by_kernel)
    scores = jnp.swapaxes(scores, 1, 2).reshape(batch, length, heads, -1)
    weights = _weights(scores, mask[:, :, None], query.dtype, drop)
    weights = weights.reshape(batch, length * heads, -1)
    mixed = jnp.einsum("bqp,bpm->bqm", weights, attended.states)
    mixed = mixed.reshape(batch, length, heads, -1)
    return jnp.einsum("bthm,hmk->bthk", mixed, kernels.value) + kernels.value_bias[None, None]


def _weights(
    scores: Float[Array, "*B P"], mask: Bool[Array, "*#B P"], dtype: jnp.dtype, drop: Drop
) -> Float[Array, "*B P"]:
    """Computes attention weights: masked softmax in float32, then dropout."""
    scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    return drop(jax.nn.softmax(scores).astype(dtype))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scores(formula: str, one: Array, other: Array) -> Array:
    """Multiplies with float32 sums; gradients are products in the operands' dtype.

    Without this, the float32 gradient of the scores would make them products in float32.
    """
    return _product(formula, one, other, dtype=jnp.dtype("float32"))


def _scores_forward(formula: str, one: Array, other: Array) -> tuple[Array, tuple[Array, Array]]:
    return _scores(formula, one, other), (one, other)


def _scores_backward(
    formula: str, operands: tuple[Array, Array], to_scores: Array
) -> tuple[Array, Array]:
    one, other = operands
    narrow = to_scores.astype(one.dtype)
    (to_one,) = jax.linear_transpose(lambda x: _product(formula, x, other), one)(narrow)
    (to_other,) = jax.linear_transpose(lambda x: _product(formula, one, x), other)(narrow)
    return to_one, to_other


_scores.defvjp(_scores_forward, _scores_backward)


def _product(formula: str, *operands: Array, dtype: jnp.dtype | None = None) -> Array:
    """Multiplies in the order of the formula.

    Without the barrier, XLA merges the following transpose and swaps the operands, which takes
    three to eight times as long on CPU with few queries.
    """
    return jax.lax.optimization_barrier(
        jnp.einsum(formula, *operands, preferred_element_type=dtype)
    )
