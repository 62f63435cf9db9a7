# SPDX-License-Identifier: Apache-2.0
"""Stages that the continuous engine runs on a cohort of rows: decoder blocks and classifiers.

The cache holds the states of all depths, from the embedding to block N, and no keys or values of
them. A token that left at depth e has the same state in all blocks above, so these look for it at
e: a copy that is never made. Rows of one sentence look up what their common ancestors wrote.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from dat_jax.data.vocabulary import EOS
from dat_jax.decoding.continuous.packed import Packed
from dat_jax.decoding.continuous.pool import Pool, Rows
from dat_jax.decoding.halting import Halting
from dat_jax.decoding.history import entries
from dat_jax.decoding.sizing import SearchSettings
from dat_jax.decoding.top_tokens import Continuations, continuations, top_tokens
from dat_jax.decoding.unstacked import MemoryAttended, UnstackedModel
from dat_jax.exits.questions import Plan
from dat_jax.types import Array, Bool, Int

Made = TypeVar("Made")


class Stores(NamedTuple):
    """Large arrays that blocks attend to, written in place and kept out of branches that write."""

    states: jax.Array  # [(N + 1) R T, D] at `Stages.address`
    memory: MemoryAttended  # [G, ...]
    memory_mask: jax.Array  # [G, S]


class Cohort(NamedTuple):
    """C rows that a tick runs; where there are fewer, R stands for no row."""

    rows: jax.Array  # [C]
    slots: jax.Array  # [C]
    positions: jax.Array  # [C]
    limits: jax.Array  # [C]
    log_probs: jax.Array  # [C] of their hypotheses
    history: jax.Array  # [C, 3T] whole: a gather of parts of rows is a loop over them on TPU
    tokens: Packed[Rows]  # [C] their newest ones
    x: jax.Array  # [C, D] their states


class Passed(NamedTuple):
    """All that a block made of a cohort."""

    x: jax.Array  # [C, D] the states after it
    plan: Plan  # [C]
    leaves: jax.Array  # [C] for a classifier


class Classified(NamedTuple):
    """All that a classifier made of a cohort."""

    plan: Plan  # [C]
    leaves: jax.Array  # [C] with its continuations
    continuations: Continuations  # [C, top]


@dataclasses.dataclass(frozen=True)
class Stages:
    """A model as stages 1 to `count`: its N blocks, then each table of its classifiers."""

    model: UnstackedModel
    halting: Halting
    settings: SearchSettings

    @property
    def count(self) -> int:
        """The number of stages."""
        return self.model.num_layers + self.model.num_tables

    @property
    def rows(self) -> int:
        """The number of rows in the pool, R."""
        return self.settings.slots * self.settings.beam_size

    @property
    def continuations(self) -> int:
        """The number of continuations that a classifier finds for a row."""
        return min(2 * self.settings.beam_size, self.model.vocabulary_size)

    def classifier_of(self, depths: Int[Array, "*B"]) -> Int[Array, "*B"]:
        """The stage that classifies states of these depths."""
        return self.model.num_layers + 1 + self.model.table_of(depths)

    def address(
        self, depths: Int[Array, "*B"], rows: Int[Array, "*#B"], positions: Int[Array, "*#B"]
    ) -> Int[Array, "*B"]:
        """Addresses of the states of these depths, rows and positions; of no row, past the end."""
        length = self.settings.length
        past_the_end = (self.model.num_layers + 1) * self.rows * length
        address = (depths * self.rows + rows) * length + positions
        return jnp.where(rows < self.rows, address, past_the_end)

    def run(
        self,
        stage: Int[Array, ""],
        pool: Pool,
        stores: Stores,
        cohort: Cohort,
        after_block: Callable[[Pool, Cohort, Passed], Made],
        after_classifier: Callable[[Pool, Cohort, Classified], Made],
    ) -> Made:
        """Runs one stage, and what comes after it; a block reads half of the positions if no row is
        further than that."""
        length, num_layers = self.settings.length, self.model.num_layers
        rooms = sorted({-(-length // 2), length})

        def block(depth: int, room: int, pool: Pool, stores: Stores, cohort: Cohort) -> Made:
            with jax.named_scope(f"block_{depth}"):
                return after_block(pool, cohort, self._block(depth, room, stores, cohort))

        def classifier(table: int, pool: Pool, _: Stores, cohort: Cohort) -> Made:
            with jax.named_scope("classifier"):
                return after_classifier(pool, cohort, self._classify(table, cohort))

        blocks = [partial(block, n, room) for n in range(1, num_layers + 1) for room in rooms]
        classifiers = [partial(classifier, table) for table in range(self.model.num_tables)]
        longest = jnp.max(jnp.where(cohort.rows < self.rows, cohort.positions, 0)) + 1
        room = jnp.sum(longest > jnp.asarray(rooms))
        branch = jnp.where(
            stage <= num_layers,
            (stage - 1) * len(rooms) + room,
            len(blocks) + stage - 1 - num_layers,
        )
        return jax.lax.switch(branch, [*blocks, *classifiers], pool, stores, cohort)

    def _block(self, depth: int, room: int, stores: Stores, cohort: Cohort) -> Passed:
        """Block `depth`, over the first `room` positions."""
        past = stores.states.at[self._past(depth, room, cohort)].get(mode="clip")
        memory = self.model.memory_of(depth, stores.memory)
        x = self.model.block(
            depth,
            cohort.x[:, None],
            self.model.self_states(depth, past),
            jnp.arange(room)[None, None] <= cohort.positions[:, None, None],
            jax.tree.map(lambda x: x.at[cohort.slots].get(mode="clip"), memory),
            stores.memory_mask.at[cohort.slots].get(mode="clip"),
        )[:, 0]
        plan = self.halting.after_block(depth, cohort.x, x, cohort.tokens.tree.plan)
        return Passed(x, plan, self._goes_to_classifier(depth, plan))

    def _past(self, depth: int, room: int, cohort: Cohort) -> Int[Array, "C P"]:
        """Addresses of the states that block `depth` attends to: those that entered it, or the last
        ones of tokens that left below it."""
        beam_size, positions = self.settings.beam_size, jnp.arange(room)[None]
        past = entries(cohort.history)
        exits, parents = past.exits[:, :room], past.parents[:, :room]
        rows = cohort.slots[:, None] * beam_size + parents
        earlier = positions < cohort.positions[:, None]
        return self.address(
            jnp.where(earlier, jnp.minimum(exits, depth - 1), depth - 1),
            jnp.where(earlier, rows, cohort.rows[:, None]),
            positions,
        )

    def _goes_to_classifier(self, depth: int, plan: Plan) -> Bool[Array, " C"]:
        """The rows that are classified after block `depth`."""
        if self.halting.classifies_each_block or depth == self.model.num_layers:
            return jnp.ones(len(plan.exit_at), bool)
        return plan.exit_at <= depth

    def _classify(self, table: int, cohort: Cohort) -> Classified:
        """The classifiers that use a table."""
        tokens = cohort.tokens.tree
        logits = self.model.classify_by_table(table, tokens.depth, cohort.x)
        top = top_tokens(logits, self.continuations, EOS)
        plan, leaves = tokens.plan, jnp.ones(len(cohort.rows), bool)
        if self.halting.classifies_each_block:
            plan = self.halting.after_classifier(tokens.depth, logits, top, plan)
            leaves = plan.exit_at <= tokens.depth
        following = continuations(top, cohort.log_probs, cohort.positions, cohort.limits, EOS)
        return Classified(plan, leaves, following)
