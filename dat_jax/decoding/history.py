# SPDX-License-Identifier: Apache-2.0
"""Histories of hypotheses: of each position the token, its exit, and the beam that ran it.

The three lie side by side in one array, so that whatever reorders beams moves them all at once. A
history begins at position 0 and says nothing of positions that its hypothesis has not reached.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.types import Array, Int

_PARTS = 3


class Entries(NamedTuple):
    """Positions of hypotheses."""

    tokens: jax.Array  # [*B] that were found there
    exits: jax.Array  # [*B] the depths at which they were
    parents: jax.Array  # [*B] the beams which found them


def no_history(batch: int, beams: int, length: int) -> Int[Array, "B J history"]:
    """The history before the first token."""
    return jnp.zeros((batch, beams, _PARTS * length), jnp.int32)


def entries(history: Int[Array, "*B history"]) -> Entries:
    """All positions, [*B, T]."""
    return Entries(*jnp.split(history, _PARTS, axis=-1))


def extend(
    history: Int[Array, "B J history"], position: Int[Array, " B"], new: Entries
) -> Int[Array, "B J history"]:
    """Histories with one entry more, [B, J], at the next position of each sentence."""
    length = history.shape[-1] // _PARTS
    columns = jnp.arange(_PARTS * length)[None, None]
    for part, values in enumerate(new):
        here = columns == part * length + position[:, None, None]
        history = jnp.where(here, values[..., None], history)
    return history
