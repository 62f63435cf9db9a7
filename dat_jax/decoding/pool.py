# SPDX-License-Identifier: Apache-2.0
"""The sentences that the continuous engine works on, and what each of their rows waits for.

A slot holds a sentence; its J hypotheses are rows g J to g J + J - 1. Each row is at a position and
a depth of its own and waits for one stage: block 1 to N, then a classifier. A row whose next token
has been classified waits for its siblings; when all are there, the sentence advances.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.data.vocabulary import PAD
from dat_jax.decoding import beam
from dat_jax.decoding.beam import BeamState
from dat_jax.decoding.continuations import Continuations
from dat_jax.types import Array, Bool, Int

CLASSIFIED = 0  # the stage of a row that waits for its siblings; those to be run count from 1


class Sentences(NamedTuple):
    """What G slots hold."""

    place: jax.Array  # [G] in the queue; the queue's size if there is no sentence
    number: jax.Array  # [G] in the text
    working: jax.Array  # [G] whether its search goes on
    exits: jax.Array  # [G] the depth above which none of its tokens goes
    beams: BeamState
    ancestors: jax.Array  # [G, J, T] which row of the sentence wrote a hypothesis' position


class Rows(NamedTuple):
    """The newest token of each hypothesis, R = G J."""

    stage: jax.Array  # [R] what it waits for
    since: jax.Array  # [R] the tick when it came there
    depth: jax.Array  # [R] blocks that it has run
    exit_ahead: jax.Array  # [R] the depth above which it does not go
    found: Continuations  # [R, Q] once it is classified; -inf of a row that never held a hypothesis


class Pool(NamedTuple):
    """All about the sentences in work but the large arrays that blocks attend to."""

    sentences: Sentences
    rows: Rows

    @property
    def beam_size(self) -> int:
        """J."""
        return self.sentences.beams.log_probs.shape[1]


def empty_pool(slots: int, beam_size: int, length: int, found: int, no_sentence: int) -> Pool:
    """A pool of `slots` slots with `beam_size` rows each and nothing in them.

    Args:
        slots: G.
        beam_size: J.
        length: room for tokens, T.
        found: continuations that are kept of each row, Q.
        no_sentence: what `place` says of an empty slot.
    """
    zeros = jnp.zeros(slots * beam_size, jnp.int32)
    return Pool(
        Sentences(
            place=jnp.full(slots, no_sentence, jnp.int32),
            number=jnp.zeros(slots, jnp.int32),
            working=jnp.zeros(slots, bool),
            exits=jnp.zeros(slots, jnp.int32),
            beams=beam.init(jnp.ones(slots, jnp.int32), beam_size, length, PAD),
            ancestors=jnp.zeros((slots, beam_size, length), jnp.int32),
        ),
        Rows(
            stage=jnp.full_like(zeros, CLASSIFIED),
            since=zeros,
            depth=zeros,
            exit_ahead=zeros,
            found=Continuations(
                jnp.full((len(zeros), found), -jnp.inf, jnp.float32),
                jnp.zeros((len(zeros), found), jnp.int32),
            ),
        ),
    )


def waiting(pool: Pool, num_stages: int) -> Int[Array, " Q"]:
    """How many rows wait for each stage, the first stage first."""
    stages = jnp.arange(1, num_stages + 1)
    return jnp.sum(pool.rows.stage[:, None] == stages[None], axis=0)


def ready(pool: Pool) -> Bool[Array, " G"]:
    """The sentences all of whose rows have been classified."""
    classified = (pool.rows.stage == CLASSIFIED).reshape(-1, pool.beam_size)
    return pool.sentences.working & jnp.all(classified, axis=1)


def longest_waiting(pool: Pool, stage: Int[Array, ""], count: int) -> Int[Array, " C"]:
    """The `count` rows that have waited longest for `stage`; R for no row where there are fewer."""
    rows = len(pool.rows.stage)
    patience = jnp.where(pool.rows.stage == stage, -pool.rows.since.astype(jnp.float32), -jnp.inf)
    patience, chosen = jax.lax.top_k(patience, min(count, rows))
    chosen = jnp.where(patience > -jnp.inf, chosen, rows)
    return jnp.pad(chosen, (0, count - len(chosen)), constant_values=rows)


def rows_of(slots: Int[Array, " A"], beam_size: int) -> Int[Array, " R"]:
    """The rows of these slots."""
    return (slots[:, None] * beam_size + jnp.arange(beam_size)[None]).reshape(-1)


def take(pool: Pool, slots: Int[Array, " A"]) -> Pool:
    """The sentences of these slots as a pool of their own; no slot's is not working."""
    some = _at(lambda leaf, index: leaf.at[index].get(mode="clip"), slots, pool)
    there = slots < len(pool.sentences.working)
    working = some.sentences.working & there
    return some._replace(sentences=some.sentences._replace(working=working))


def place(pool: Pool, slots: Int[Array, " A"], some: Pool) -> Pool:
    """The pool with the sentences of `some` in these slots; those of no slot are dropped."""
    return _at(lambda leaf, index, new: leaf.at[index].set(new, mode="drop"), slots, pool, some)


def _at(function: Callable[..., Array], slots: Array, pool: Pool, *others: Pool) -> Pool:
    """Maps leaves along with the indices of these slots, or of their rows."""
    indices = (slots, rows_of(slots, pool.beam_size))
    parts = [
        jax.tree.map(lambda leaf, *rest, index=index: function(leaf, index, *rest), *trees)
        for index, *trees in zip(indices, pool, *others, strict=True)
    ]
    return Pool(*parts)
