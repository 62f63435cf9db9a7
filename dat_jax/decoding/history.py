# SPDX-License-Identifier: Apache-2.0
"""Histories of hypotheses: the token, its exit and its beam, for each position.

One array holds all three, so that reordering beams moves them together. A history starts at
position 0; later entries than its hypothesis has tokens are undefined.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.types import Array, Int

_PARTS = 3


class Entries(NamedTuple):
    """The entries of a history at some positions."""

    tokens: jax.Array  # [*B]
    exits: jax.Array  # [*B] the depths at which the tokens were predicted
    parents: jax.Array  # [*B] the beams that predicted them


def no_history(batch: int, beams: int, length: int) -> Int[Array, "B J history"]:
    """Returns the history before the first token."""
    return jnp.zeros((batch, beams, _PARTS * length), jnp.int32)


def entries(history: Int[Array, "*B history"]) -> Entries:
    """Returns the entries of all positions, [*B, T]."""
    return Entries(*jnp.split(history, _PARTS, axis=-1))


def extend(
    history: Int[Array, "B J history"], position: Int[Array, " B"], new: Entries
) -> Int[Array, "B J history"]:
    """Adds an entry, [B, J], at the next position of each sentence."""
    length = history.shape[-1] // _PARTS
    columns = jnp.arange(_PARTS * length)[None, None]
    for part, values in enumerate(new):
        here = columns == part * length + position[:, None, None]
        history = jnp.where(here, values[..., None], history)
    return history
