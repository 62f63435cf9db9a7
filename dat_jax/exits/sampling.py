# SPDX-License-Identifier: Apache-2.0
"""Chance: exit depths for mixed training (paper, section 3.1), draws for decoding."""

from typing import Literal

import jax
import jax.numpy as jnp

from dat_jax.types import Array, Float, Int, PRNGKeyArray


def sample_exits(
    key: PRNGKeyArray,
    rows: int,
    length: int,
    num_layers: int,
    sampling: Literal["per_token", "per_sequence"],
) -> Int[Array, "B T"]:
    """Draws depths from 1 to `num_layers` uniformly: one for each token, or one for each row.

    The paper says only that exit sequences are random; it evaluates with a draw for each token.
    """
    draws = length if sampling == "per_token" else 1
    depths = jax.random.randint(key, (rows, draws), 1, num_layers + 1)
    return jnp.broadcast_to(depths, (rows, length))


def token_draws(
    seed: int | Array, sentences: Int[Array, "B"], positions: Int[Array, "B"], beams: int
) -> Float[Array, "B J"]:
    """A number from [0, 1) for each hypothesis of each sentence at its position.

    It follows from the seed, the sentence's number, the position and the beam, and from nothing
    else: who else is in the batch does not matter.
    """

    def draw(sentence: Array, position: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), sentence), position)
        return jax.random.uniform(key, (beams,))

    return jax.vmap(draw)(sentences, positions)
