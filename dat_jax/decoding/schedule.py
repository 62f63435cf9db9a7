# SPDX-License-Identifier: Apache-2.0
"""What the continuous engine runs next, on how many rows, out of how many; and when it pays."""

from typing import NamedTuple

import jax.numpy as jnp

from dat_jax.exits.policies import Signal
from dat_jax.types import Array, Int

_COHORTS = 6  # in a pool: with fewer, ticks run half empty
_FEWEST_COHORTS = 3  # where more would have few rows
_FEW_ROWS = 64  # with fewer, products are inefficient
_REFILLED = 8  # an eighth of the slots may wait to be refilled
_ENCODED = 256  # source tokens, with fewer of which the encoder is inefficient
_FEWEST_ROWS = 256  # in all; below, lockstep is faster
_DEEPEST = 0.75  # of all blocks on average; beyond, lockstep is as fast


class Sizes(NamedTuple):
    """How much the continuous engine works on at a time."""

    cohort: int  # rows that a tick runs
    slots: int  # sentences in the pool


def next_stage(waiting: Int[Array, " Q"], cohort: int) -> Int[Array, ""]:
    """The stage with the fullest cohort; of equal ones the deepest, which sets rows free soonest.

    Args:
        waiting: the rows that wait for each stage, in the order in which a row goes through them.
        cohort: how many rows a tick runs.
    """
    stages = waiting.shape[0]
    return jnp.argmax(jnp.minimum(waiting, cohort) * stages + jnp.arange(stages))


def default_cohort(batch_size: int, beam_size: int) -> int:
    """As many rows as a batch of sentences has; of a beam, where there are more, as many as are
    efficient."""
    return max(batch_size, min(batch_size * beam_size, _FEW_ROWS))


def choose_sizes(
    sentences: int,
    beam_size: int,
    cohort_size: int,
    pool_size: int,
    most_slots: int,
) -> Sizes:
    """Sizes for some sentences: as asked for, and no more than they or the memory can fill.

    Args:
        sentences: how many there are.
        beam_size: rows of each.
        cohort_size: rows to run at a time.
        pool_size: sentences to hold; 0 for as many as fill a few cohorts.
        most_slots: sentences that there is memory for.
    """
    wanted = pool_size or -(-_COHORTS * cohort_size // beam_size)
    # Powers of two, lest every number of sentences compile a program of its own.
    slots = max(1, min(wanted, most_slots, 1 << (sentences - 1).bit_length()))
    rows = slots * beam_size
    if not pool_size:
        rows = max(-(-rows // _COHORTS), min(_FEW_ROWS, -(-rows // _FEWEST_COHORTS)))
    rows = min(cohort_size, rows)
    return Sizes(-(-rows // beam_size) * beam_size, slots)


def refill_size(slots: int, source_length: int) -> int:
    """How many sentences come in together: enough to fill the encoder, and few enough that the
    slots which wait for them are not missed."""
    return min(slots, max(slots // _REFILLED, -(-_ENCODED // source_length)))


def pays(rows: int, signal: Signal, share_of_blocks: float) -> bool:
    """Whether the continuous engine is faster than the lockstep engine.

    It is not where all tokens exit at one depth, which leaves nothing to sort them by; nor with few
    rows, which hardly ever meet at a stage; nor where exits are deep.

    Args:
        rows: hypotheses of all sentences.
        signal: what the policy looks at.
        share_of_blocks: that tokens were found to need so far; 0 if nothing is known yet.
    """
    sorts = signal is not Signal.NOTHING
    return sorts and rows >= _FEWEST_ROWS and not is_deep(share_of_blocks)


def is_deep(share_of_blocks: float) -> bool:
    """Whether exits after this share of the blocks, on average, leave too little to save."""
    return share_of_blocks > _DEEPEST
