# SPDX-License-Identifier: Apache-2.0
"""Tables of who wrote what a hypothesis looks back on: beams are reordered, and no state moves.

A slot of a cache belongs to a position and the beam that wrote there. When beam search drops one
hypothesis and continues another twice, no key or value moves: a table of ancestors tells each beam
which beam wrote each of its positions, and the attention mask shows it those slots alone. Nothing
here asks where a sentence begins: a cache may be a ring, and a position one of the ring's.
"""

import jax
import jax.numpy as jnp

from dat_jax.decoding.beam import take_beams
from dat_jax.model.attention import Attended
from dat_jax.types import Array, Bool, Int


def no_ancestors(batch: int, beams: int, length: int) -> Int[Array, "B J T"]:
    """The table before the first token: nobody has written anything."""
    return jnp.full((batch, beams, length), -1, jnp.int32)


def claim(ancestors: Int[Array, "B J T"], position: Int[Array, "*#B"]) -> Int[Array, "B J T"]:
    """Says that at `position`, of all sentences or of each, each beam writes for itself."""
    _, beams, length = ancestors.shape
    here = jnp.arange(length)[None, None] == position.reshape(-1, 1, 1)
    return jnp.where(here, jnp.arange(beams)[None, :, None], ancestors)


def follow(ancestors: Int[Array, "B J T"], parents: Int[Array, "B J"]) -> Int[Array, "B J T"]:
    """Lets each new beam continue the one that `parents` names."""
    return take_beams(ancestors, parents)


def visible(ancestors: Int[Array, "B J T"]) -> Bool[Array, "B J P"]:
    """The slots that each beam may look at: those that its ancestors wrote."""
    batch, beams, _ = ancestors.shape
    return jax.nn.one_hot(ancestors, beams, dtype=bool).reshape(batch, beams, -1)


def write(cache: Attended, position: Int[Array, ""], new: Attended) -> Attended:
    """Puts what is of all beams' newest tokens at `position`: slot p of a cache is of position
    p // J and beam p % J.

    Nothing stands between a write and attention, not even a reshape: XLA would fuse the two and
    write twice, the second time into a copy of the whole cache.
    """
    return jax.tree.map(
        lambda old, new: jax.lax.dynamic_update_slice_in_dim(
            old, new, position * new.shape[-2], axis=old.ndim - 2
        ),
        cache,
        new,
    )
