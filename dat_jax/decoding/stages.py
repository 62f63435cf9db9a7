# SPDX-License-Identifier: Apache-2.0
"""What the continuous engine runs on a cohort of rows: a decoder block, or a classifier.

The cache holds the states of all depths, from the embedding to block N, and no keys or values of
them. A token that left at depth e has the same state in all blocks above, so these look for it at
e: a copy that is never made. Rows of one sentence look up what their common ancestors wrote.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.data.vocabulary import EOS, PAD
from dat_jax.decoding import beam
from dat_jax.decoding.continuations import Continuations, best_continuations
from dat_jax.decoding.parts import KeysValues, Parts
from dat_jax.decoding.pool import Pool
from dat_jax.exits.policies import Policy, Signal, exit_depth
from dat_jax.types import Array, Bool, Float, Int


class Stores(NamedTuple):
    """What blocks attend to: large arrays, written in place and kept out of branches that write."""

    states: jax.Array  # [(N + 1) R T, D] at `Stages.address`
    memory: tuple[KeysValues, ...]  # of each block, keys and values [G, H, S, K]
    memory_mask: jax.Array  # [G, S]


class Cohort(NamedTuple):
    """C rows that a tick runs; where there are fewer, R stands for no row."""

    rows: jax.Array  # [C]
    slots: jax.Array  # [C]
    positions: jax.Array  # [C]
    depths: jax.Array  # [C] before the tick
    x: jax.Array  # [C, D] their states at this depth


class Outcome(NamedTuple):
    """What a stage made of a cohort."""

    x: jax.Array  # [C, D] of a block: the states after it
    leaves: jax.Array  # [C] of a block: for a classifier; of a classifier: with what it found
    exit_ahead: jax.Array  # [C]
    found: Continuations  # [C, Q] of a classifier


@dataclasses.dataclass(frozen=True)
class Stages:
    """A model as stages 1 to `count`: its N blocks, then each table of its classifiers."""

    parts: Parts
    policy: Policy
    beam_size: int
    rows: int  # in the pool, R
    length: int  # room for tokens, T

    @property
    def count(self) -> int:
        """How many stages there are."""
        return self.parts.num_layers + self.parts.num_tables

    @property
    def found(self) -> int:
        """How many continuations a classifier finds for a row, Q."""
        return min(2 * self.beam_size, self.parts.vocabulary_size)

    def classifier_of(self, depths: Int[Array, "*B"]) -> Int[Array, "*B"]:
        """The stage that classifies states of these depths."""
        return self.parts.num_layers + 1 + self.parts.table_of(depths)

    def address(
        self, depths: Int[Array, "*B"], rows: Int[Array, "*#B"], positions: Int[Array, "*#B"]
    ) -> Int[Array, "*B"]:
        """Where the states of these depths, rows and positions lie; no row's, past the end."""
        past_the_end = (self.parts.num_layers + 1) * self.rows * self.length
        address = (depths * self.rows + rows) * self.length + positions
        return jnp.where(rows < self.rows, address, past_the_end)

    def run(self, stage: Int[Array, ""], pool: Pool, stores: Stores, cohort: Cohort) -> Outcome:
        """Runs one stage; a block reads half of the positions if no row is further than that."""
        rooms = sorted({-(-self.length // 2), self.length})
        num_layers = self.parts.num_layers
        blocks = [partial(self._block, n, room) for n in range(1, num_layers + 1) for room in rooms]
        classifiers = [partial(self._classify, table) for table in range(self.parts.num_tables)]
        longest = jnp.max(jnp.where(cohort.rows < self.rows, cohort.positions, 0)) + 1
        room = jnp.sum(longest > jnp.asarray(rooms))
        branch = jnp.where(
            stage <= num_layers,
            (stage - 1) * len(rooms) + room,
            len(blocks) + stage - 1 - num_layers,
        )
        return jax.lax.switch(branch, [*blocks, *classifiers], pool, stores, cohort)

    def _block(self, depth: int, room: int, pool: Pool, stores: Stores, cohort: Cohort) -> Outcome:
        """Block `depth`, over the first `room` positions."""
        positions = jnp.arange(room)[None]
        x = self.parts.step(
            depth,
            cohort.x,
            stores.states.at[self._past(depth, room, pool, cohort)].get(mode="clip"),
            positions <= cohort.positions[:, None],
            jax.tree.map(lambda x: x.at[cohort.slots].get(mode="clip"), stores.memory[depth - 1]),
            stores.memory_mask.at[cohort.slots].get(mode="clip"),
        )
        leaves, exit_ahead = self._leaves(
            depth, x, pool.rows.exit_ahead.at[cohort.rows].get(mode="clip")
        )
        size = (len(cohort.rows), self.found)
        nothing = Continuations(jnp.zeros(size, jnp.float32), jnp.zeros(size, jnp.int32))
        return Outcome(x, leaves, exit_ahead, nothing)

    def _past(self, depth: int, room: int, pool: Pool, cohort: Cohort) -> Int[Array, "C P"]:
        """Where the states that block `depth` attends to lie: those that entered it, or the last
        ones of tokens that left below it."""
        of_row = (cohort.slots, cohort.rows % self.beam_size, slice(room))
        ancestors = pool.sentences.ancestors.at[of_row].get(mode="clip")
        exits = pool.sentences.beams.exits.at[of_row].get(mode="clip")
        positions = jnp.arange(room)[None]
        earlier = positions < cohort.positions[:, None]
        depths = jnp.where(earlier, jnp.minimum(exits, depth - 1), depth - 1)
        rows = cohort.slots[:, None] * self.beam_size + ancestors
        return self.address(depths, rows, positions)

    def _leaves(
        self, depth: int, x: Float[Array, "C D"], exit_ahead: Int[Array, " C"]
    ) -> tuple[Bool[Array, " C"], Int[Array, " C"]]:
        """Which rows go to a classifier after block `depth`, and the exits that are known then."""
        signal = self.policy.signal
        if signal is Signal.CLASSIFIER or depth == self.parts.num_layers:
            return jnp.ones(len(x), bool), exit_ahead
        if signal is Signal.HALTING_UNIT:
            return self.policy.halts(depth, self.parts.halting_logit(depth, x)), exit_ahead
        if signal is Signal.FIRST_STATE and depth == 1:
            logits = self.parts.token_logits(x)
            exit_ahead = exit_depth(self.policy, logits, self.parts.num_layers)
        return depth >= exit_ahead, exit_ahead

    def _classify(self, table: int, pool: Pool, stores: Stores, cohort: Cohort) -> Outcome:
        """The classifiers that use a table."""
        logits = self.parts.classify_by_table(table, cohort.depths, cohort.x)
        normalizer = jax.nn.logsumexp(logits, axis=-1)
        leaves = jnp.ones(len(cohort.rows), bool)
        if self.policy.signal is Signal.CLASSIFIER:
            confidence = jnp.exp(jnp.max(logits, axis=-1) - normalizer)
            for depth in range(1, self.parts.num_layers):
                halts = self.policy.halts(depth, confidence)
                leaves = jnp.where(cohort.depths == depth, halts, leaves)
        beams = pool.sentences.beams
        found = best_continuations(
            logits,
            beams.log_probs.reshape(-1).at[cohort.rows].get(mode="clip") - normalizer,
            beam.must_end(beams).at[cohort.slots].get(mode="clip"),
            self.found,
            eos_id=EOS,
            pad_id=PAD,
        )
        return Outcome(
            cohort.x, leaves, pool.rows.exit_ahead.at[cohort.rows].get(mode="clip"), found
        )
