# SPDX-License-Identifier: Apache-2.0
"""What the continuous engine runs next, on how many rows, out of how many; and when it pays."""

from typing import NamedTuple

import jax.numpy as jnp

from dat_jax.types import Array, Int

_COHORTS = 6  # in a pool, by default: with fewer, ticks run half empty
_FEWEST_COHORTS = 3  # if sentences are few: with more, cohorts are too small to be run efficiently
_FEWEST_SENTENCES = 128  # below, lockstep is faster


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
    cohorts = 1 if pool_size else _FEWEST_COHORTS
    rows = min(cohort_size, -(-slots * beam_size // cohorts))
    return Sizes(max(1, -(-rows // beam_size)) * beam_size, slots)


def pays(sentences: int) -> bool:
    """Whether the continuous engine is worth its bookkeeping.

    It is not for few sentences, which hardly ever meet at a stage. With many it is; at full
    depth too, or nearly so, if they end at different lengths, as in text.
    """
    return sentences >= _FEWEST_SENTENCES
