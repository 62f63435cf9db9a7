# SPDX-License-Identifier: Apache-2.0
"""The sentences that the continuous engine works on, and what each of their rows waits for.

A slot holds a sentence; its J hypotheses are rows g J to g J + J - 1. Each row is at a position and
a depth of its own and waits for one stage: block 1 to N, then a classifier. A row whose next token
has been classified waits for its siblings; when all have been, the sentence advances.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.decoding.continuous.packed import Packed
from dat_jax.decoding.queue import Sentences, put
from dat_jax.decoding.top_tokens import Continuations
from dat_jax.exits.questions import Plan
from dat_jax.types import Array, Bool, Int

IDLE = -1  # the stage of a row that holds no hypothesis
CLASSIFIED = 0  # of one that waits for its siblings; stages to be run count from 1


class Slots(NamedTuple):
    """The contents of G slots."""

    sentences: Sentences
    ceilings: jax.Array  # [G] the depth above which none of their tokens goes


class Rows(NamedTuple):
    """The newest token of each hypothesis, R = G J."""

    stage: jax.Array  # [R] what it waits for
    since: jax.Array  # [R] the tick when it came there
    depth: jax.Array  # [R] blocks that it has run
    plan: Plan  # [R]
    continuations: Continuations  # [R, top] once classified; -inf of a row that never held one


class Pool(NamedTuple):
    """All about the sentences in work but the large arrays that blocks attend to."""

    slots: Packed[Slots]
    rows: Packed[Rows]

    @property
    def beam_size(self) -> int:
        """J."""
        return len(self.rows) // len(self.slots)


def idle_rows(count: int, continuations: int, carry_width: int) -> Rows:
    """Rows that wait for nothing.

    Args:
        count: of them, R.
        continuations: kept of each row.
        carry_width: what the rule remembers of a token, W.
    """
    zeros = jnp.zeros(count, jnp.int32)
    return Rows(
        stage=jnp.full_like(zeros, IDLE),
        since=zeros,
        depth=zeros,
        plan=Plan(zeros, jnp.zeros((count, carry_width), jnp.float32)),
        continuations=Continuations(
            jnp.full((count, continuations), -jnp.inf, jnp.float32),
            jnp.zeros((count, continuations), jnp.int32),
        ),
    )


def waiting(pool: Pool, num_stages: int) -> Int[Array, " stages"]:
    """Counts the rows that wait for each stage, the first stage first."""
    stages = jnp.arange(1, num_stages + 1)
    return jnp.sum(pool.rows.tree.stage[:, None] == stages[None], axis=0)


def next_stage(waiting: Int[Array, " stages"], cohort: int) -> Int[Array, ""]:
    """The stage with the fullest cohort; of equal ones the deepest, which sets rows free soonest.

    Args:
        waiting: the rows that wait for each stage, in the order in which a row goes through them.
        cohort: how many rows a tick runs.
    """
    stages = waiting.shape[0]
    return jnp.argmax(jnp.minimum(waiting, cohort) * stages + jnp.arange(stages))


def ready(pool: Pool) -> Bool[Array, " G"]:
    """The sentences in work all of whose rows with a hypothesis have been classified."""
    stages = pool.rows.tree.stage.reshape(-1, pool.beam_size)
    return jnp.max(stages, axis=1) == CLASSIFIED


def longest_waiting(pool: Pool, stage: Int[Array, ""], count: int) -> Int[Array, " C"]:
    """The `count` rows that have waited longest for `stage`; R for no row where there are fewer."""
    rows, tokens = len(pool.rows), pool.rows.tree
    patience = jnp.where(tokens.stage == stage, -tokens.since.astype(jnp.float32), -jnp.inf)
    patience, chosen = jax.lax.top_k(patience, min(count, rows))
    chosen = jnp.where(patience > -jnp.inf, chosen, rows)
    return jnp.pad(chosen, (0, count - len(chosen)), constant_values=rows)


def rows_of(slots: Int[Array, " A"], beam_size: int) -> Int[Array, " R"]:
    """The rows of these slots."""
    return (slots[:, None] * beam_size + jnp.arange(beam_size)[None]).reshape(-1)


def take(pool: Pool, slots: Int[Array, " A"]) -> Pool:
    """The sentences of these slots as a pool of their own; of no slot, those of the last."""
    return Pool(pool.slots.take(slots), pool.rows.take(rows_of(slots, pool.beam_size)))


def place(pool: Pool, slots: Int[Array, " A"], part: Pool) -> Pool:
    """The pool with the sentences of `part` in these slots; those of no slot are dropped."""
    rows = put(pool.rows, rows_of(slots, pool.beam_size), part.rows)
    return Pool(put(pool.slots, slots, part.slots), rows)
