# SPDX-License-Identifier: Apache-2.0
"""Random exit depths for mixed training (paper, section 3.1), and random draws for decoding."""

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
    """Draws depths uniformly from 1 to `num_layers`, one per token or one per row.

    The paper only says that exit sequences are random; it evaluates with one draw per token.
    """
    draws = length if sampling == "per_token" else 1
    depths = jax.random.randint(key, (rows, draws), 1, num_layers + 1)
    return jnp.broadcast_to(depths, (rows, length))


def token_draws(
    seed: int | Array, sentences: Int[Array, "B"], positions: Int[Array, "B"], beams: int
) -> Float[Array, "B J"]:
    """Draws a number in [0, 1) for each hypothesis of each sentence at its position.

    It depends only on the seed, the sentence's number, the position and the beam, not on other
    sentences in the batch.
    """

    def draw(sentence: Array, position: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), sentence), position)
        return jax.random.uniform(key, (beams,))

    return jax.vmap(draw)(sentences, positions)
