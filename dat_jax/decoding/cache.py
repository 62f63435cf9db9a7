# SPDX-License-Identifier: Apache-2.0
"""The cache of a block, and how each hypothesis reads its own past from it.

A cache is a ring of T positions with a slot for each beam. All sentences write to the same place of
the ring at each step, whatever their own positions are, so a write is one slice. Beam search
reorders hypotheses without moving the cache: a hypothesis finds its past through the beams recorded
in its history.

A step gathers at most as many positions as its longest hypothesis has, rounded up to one of a few
static windows. Greedy search of all rows gathers nothing.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.decoding.beam import BeamState, live
from dat_jax.decoding.compaction import Rows
from dat_jax.decoding.history import entries
from dat_jax.model.attention import (
    Attend,
    Attended,
    Drop,
    KeysValues,
    StateKernels,
    attend_to,
)
from dat_jax.types import Array, Float, Int


class Past(NamedTuple):
    """The locations of all hypotheses' earlier positions in the rings, at one step."""

    now: jax.Array  # [] the place in the ring that this step writes
    positions: jax.Array  # [R] of the newest token of each hypothesis
    parents: jax.Array  # [R, T] the beam that ran each earlier position
    window: jax.Array  # [] index of the smallest window that covers all hypotheses


def past_of(beams: BeamState, now: Int[Array, ""], windows: tuple[int, ...]) -> Past:
    """Locates the hypotheses' earlier positions.

    Args:
        beams: the sentences' hypotheses.
        now: the place in the ring that this step writes.
        windows: position counts to compile for, ascending, the last one T.
    """
    _, num_beams, _ = beams.history.shape
    parents = entries(beams.history.reshape(-1, beams.history.shape[-1])).parents
    longest = 1 + jnp.max(jnp.where(jnp.any(live(beams), axis=1), beams.position, 0))
    fits = longest <= jnp.asarray(windows)
    if num_beams == 1:
        # Greedy search reads one slice of the ring; a range that wraps around is not a slice.
        fits &= (jnp.asarray(windows) <= now + 1) | (jnp.arange(len(windows)) == len(windows) - 1)
    positions = jnp.repeat(beams.position, num_beams)
    return Past(now, positions, parents, jnp.argmax(fits))


def write(cache: Attended, now: Int[Array, ""], new: Attended) -> Attended:
    """Writes all beams' newest tokens: slot p of a cache is place p // J of the ring, beam p % J.

    Attention must follow directly, without even a reshape: XLA would fuse the two and write twice,
    the second time into a copy of the whole cache.
    """
    return jax.tree.map(
        lambda old, new: jax.lax.dynamic_update_slice_in_dim(
            old, new, now * new.shape[-2], axis=old.ndim - 2
        ),
        cache,
        new,
    )


def attend_past(
    cache: Attended,
    past: Past,
    rows: Rows,
    windows: tuple[int, ...],
    kernels: StateKernels,
) -> Attend:
    """Returns attention of these rows' newest tokens, [C, 1], to their hypotheses' pasts."""
    sentences = jax.tree.leaves(cache)[0].shape[0]
    num_beams = len(rows.active) // sentences
    read = _read_slice if num_beams == 1 else _read_history
    if num_beams == 1 and rows.indices is None:
        windows = windows[-1:]  # read in place; to copy a part takes longer than to attend to all

    def attend(query: Float[Array, "C 1 H K"], drop: Drop) -> Float[Array, "C 1 H K"]:
        def mix(window: int) -> Array:
            attended, ages = read(cache, past, rows, window)
            mask = ages <= rows.take(past.positions)[:, None]
            return attend_to(attended, mask[:, None], kernels)(query, drop)

        return jax.lax.switch(past.window, [partial(mix, window) for window in windows])

    return attend


def attend_memory(memory: Attended, mask: Array, rows: Rows, kernels: StateKernels) -> Attend:
    """Returns attention of these rows' newest tokens, [C, 1], to their sentences' memory."""
    sentences, num_beams = len(mask), len(rows.active) // len(mask)

    def by_row(query: Float[Array, "C 1 H K"], drop: Drop) -> Float[Array, "C 1 H K"]:
        own = rows.numbers // num_beams
        of_row, its_mask = jax.tree.map(lambda leaf: leaf.at[own].get(mode="clip"), (memory, mask))
        return attend_to(of_row, its_mask[:, None], kernels)(query, drop)

    def by_sentence(query: Float[Array, "C 1 H K"], drop: Drop) -> Float[Array, "C 1 H K"]:
        every = jnp.zeros((len(rows.active), *query.shape[1:]), query.dtype)
        every = rows.put(query, every).reshape(sentences, num_beams, *query.shape[2:])
        mixed = attend_to(memory, mask[:, None], kernels)(every, drop)
        return rows.take(mixed.reshape(len(rows.active), *query.shape[1:]))

    # Beams share their sentence's memory; by row, it would be gathered once per beam.
    return by_sentence if len(rows.numbers) >= sentences else by_row


def _read_slice(
    cache: Attended, past: Past, rows: Rows, window: int
) -> tuple[Attended, Int[Array, "#C P"]]:
    """Reads the newest `window` places of the rings of rows without other beams, all places in the
    case of all rows; also returns the age of each place in steps."""
    length = jax.tree.leaves(cache)[0].shape[-2]
    first = past.now + 1 - window if window < length else jnp.zeros_like(past.now)

    def read(leaf: Array) -> Array:
        def read_one(sentence: Array) -> Array:
            start = (sentence, *[0] * (leaf.ndim - 3), first, 0)
            sizes = (1, *leaf.shape[1:-2], window, leaf.shape[-1])
            return jax.lax.dynamic_slice(leaf, start, sizes)[0]

        return leaf if rows.indices is None else jax.vmap(read_one)(rows.indices)

    ages = (past.now - first - jnp.arange(window)) % length
    return jax.tree.map(read, cache), ages[None]


def _read_history(
    cache: Attended, past: Past, rows: Rows, window: int
) -> tuple[Attended, Int[Array, "C P"]]:
    """Gathers positions 0 to `window` - 1 of each row's history; also returns the age of each in
    steps, or T for positions in the future."""
    sentences = jax.tree.leaves(cache)[0].shape[0]
    num_beams, length = len(rows.active) // sentences, past.parents.shape[1]
    positions = rows.take(past.positions)[:, None]
    ages = positions - jnp.arange(window)[None]
    beams = jnp.where(
        ages > 0, rows.take(past.parents)[:, :window], rows.numbers[:, None] % num_beams
    )
    place = ((past.now - ages) % length) * num_beams + beams
    sentence = rows.numbers[:, None] // num_beams

    def read(leaf: Array) -> Array:
        if isinstance(cache, KeysValues):  # [G, H, P, K]
            return jnp.swapaxes(leaf.at[sentence, :, place].get(mode="clip"), 1, 2)
        return leaf.at[sentence, place].get(mode="clip")

    return jax.tree.map(read, cache), jnp.where(ages >= 0, ages, length)
