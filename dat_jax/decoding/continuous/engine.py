# SPDX-License-Identifier: Apache-2.0
"""The continuous engine: rows at depths of their own run in full cohorts, so that exits save time.

A pool holds more rows than run at a time. Every tick of a `lax.while_loop` picks a stage, a block
or a classifier, gathers a cohort of the rows that wait for it, runs it densely, and puts the
results back. A row that exits goes to its classifier, and starts on its next token while its
neighbours are still deep in theirs; a sentence that is done makes room for the next one of the
queue. No row waits for the deepest of a batch, and none runs a block that it does not need.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.data.vocabulary import BOS, EOS
from dat_jax.decoding import beam
from dat_jax.decoding.ancestry import claim, follow
from dat_jax.decoding.beam import BeamState, Hypotheses
from dat_jax.decoding.continuous.pool import (
    CLASSIFIED,
    Pool,
    Rows,
    Slots,
    idle_rows,
    longest_waiting,
    next_stage,
    place,
    ready,
    rows_of,
    take,
    waiting,
)
from dat_jax.decoding.continuous.stages import Classified, Cohort, Passed, Stages, Stores
from dat_jax.decoding.halting import Halting
from dat_jax.decoding.queue import Arrivals, Queue, Sentences, first_slots, put, serve
from dat_jax.decoding.sizing import SearchSettings
from dat_jax.decoding.unstacked import UnstackedModel
from dat_jax.decoding.work import Work, add_runs, no_work
from dat_jax.exits.questions import Plan, Rule
from dat_jax.model.transformer import Transformer
from dat_jax.types import Array, Float, Int, Params


class _State(NamedTuple):
    """All that a tick hands to the next, beside what `queue.serve` keeps of the sentences."""

    ceilings: jax.Array  # [G] the depth above which none of a sentence's tokens goes
    ancestors: jax.Array  # [G, J, T]
    rows: Rows
    stores: Stores
    tick: jax.Array  # []
    work: Work

    def pool(self, sentences: Sentences) -> Pool:
        """The pool of these sentences."""
        return Pool(Slots(sentences, self.ceilings, self.ancestors), self.rows)

    def with_pool(self, pool: Pool) -> "_State":
        """The state with a pool's part of it."""
        return self._replace(
            ceilings=pool.slots.ceilings, ancestors=pool.slots.ancestors, rows=pool.rows
        )


@partial(jax.jit, static_argnames=("model", "settings"))
def search(
    model: Transformer, params: Params, rule: Rule, queue: Queue, settings: SearchSettings
) -> tuple[Hypotheses, Work]:
    """Translates a queue by beam search, or greedily with a beam of 1.

    Args:
        model: the model.
        params: its parameters.
        rule: when tokens exit.
        queue: the sentences; how many there are needs no other program.
        settings: how they are searched; how many sentences are in the pool, G, on which memory
            depends, and how many rows run together: several cohorts should fit into the pool, or
            few stages have a full one waiting.

    Returns:
        The best hypothesis of each sentence, [Q]; and what was run for them.
    """
    unstacked = UnstackedModel(model, params, settings.attended)
    engine = _Engine(Stages(unstacked, Halting(unstacked, rule), settings))
    hypotheses, state = serve(queue, settings, engine.empty(queue), engine.admit, engine.tick)
    return hypotheses, state.work


@dataclasses.dataclass(frozen=True)
class _Engine:
    """All that stays the same from tick to tick."""

    stages: Stages

    @property
    def model(self) -> UnstackedModel:
        return self.stages.model

    @property
    def settings(self) -> SearchSettings:
        return self.stages.settings

    def empty(self, queue: Queue) -> _State:
        """The state before the first sentence."""
        config, settings, stages = self.model.config, self.settings, self.stages
        slots, source_length = settings.slots, queue.source.shape[1]
        states = (self.model.num_layers + 1) * stages.rows * settings.length
        stores = Stores(
            jnp.zeros((states, config.decoder_dim), jnp.dtype(config.dtype)),
            self.model.no_memory(slots, source_length),
            jnp.zeros((slots, source_length), bool),
        )
        return _State(
            jnp.zeros(slots, jnp.int32),
            jnp.zeros((slots, settings.beam_size, settings.length), jnp.int32),
            self._idle_rows(slots),
            stores,
            jnp.zeros((), jnp.int32),
            no_work(self.model.num_layers),
        )

    def admit(self, state: _State, arrivals: Arrivals) -> _State:
        """Runs the encoder, and lets the arrivals' rows wait for block 1 with their first token."""
        settings, slots = self.settings, arrivals.slots
        memory = self.model.encode(arrivals.source, arrivals.mask)
        ceilings = self.stages.halting.before_sentence(memory, arrivals.mask)
        nobody = jnp.zeros((len(slots), settings.beam_size, settings.length), jnp.int32)
        new = Pool(Slots(arrivals.sentences, ceilings, nobody), self._idle_rows(len(slots)))
        new, address, x = self._start_tokens(new, slots, state.tick)
        stores = Stores(
            state.stores.states.at[address].set(x, mode="drop"),
            put(state.stores.memory, slots, self.model.memory_attended(memory, ceilings)),
            put(state.stores.memory_mask, slots, arrivals.mask),
        )
        return state._replace(
            ceilings=put(state.ceilings, slots, ceilings),
            ancestors=put(state.ancestors, slots, new.slots.ancestors),
            rows=put(state.rows, rows_of(slots, settings.beam_size), new.rows),
            stores=stores,
        )

    def tick(self, state: _State, sentences: Sentences) -> tuple[_State, BeamState]:
        """Runs the stage whose turn it is on the rows that have waited longest for it."""
        pool, stores, stages = state.pool(sentences), state.stores, self.stages
        num_layers, cohort_size = self.model.num_layers, self.settings.cohort
        stage = 1 + next_stage(waiting(pool, stages.count), cohort_size)
        rows = longest_waiting(pool, stage, cohort_size)
        cohort = self._gather(pool, stores, rows)

        # The stores stay out of what the branches return: there, XLA would copy them.
        pool, address, x = stages.run(
            stage,
            pool,
            stores,
            cohort,
            partial(self._after_block, state.tick),
            partial(self._after_classifier, state.tick),
        )
        stage_counted = jnp.minimum(stage, num_layers + 1) - 1
        needed = jnp.sum(rows < stages.rows)
        state = state.with_pool(pool)._replace(
            stores=stores._replace(states=stores.states.at[address].set(x, mode="drop")),
            tick=state.tick + 1,
            work=add_runs(state.work, stage_counted, 1, needed, cohort_size),
        )
        return state, pool.slots.sentences.beams

    def _gather(self, pool: Pool, stores: Stores, rows: Int[Array, " C"]) -> Cohort:
        """All that a stage needs of these rows."""
        slots = rows // self.settings.beam_size
        positions = pool.slots.sentences.beams.position.at[slots].get(mode="clip")
        depths, plan = jax.tree.map(
            lambda leaf: leaf.at[rows].get(mode="clip"), (pool.rows.depth, pool.rows.plan)
        )
        x = stores.states.at[self.stages.address(depths, rows, positions)].get(mode="clip")
        return Cohort(rows, slots, positions, depths, plan, x)

    def _after_block(
        self, tick: Int[Array, ""], pool: Pool, cohort: Cohort, passed: Passed
    ) -> tuple[Pool, Int[Array, " C"], Float[Array, "C D"]]:
        """The rows one block further up; and the states to write, with where."""
        depths = cohort.depths + 1
        stage = jnp.where(passed.leaves, self.stages.classifier_of(depths), depths + 1)
        moved = (stage, jnp.full_like(stage, tick), depths, passed.plan)
        rows = Rows(*put(pool.rows[:4], cohort.rows, moved), pool.rows.continuations)
        address = self.stages.address(depths, cohort.rows, cohort.positions)
        return pool._replace(rows=rows), address, passed.x

    def _after_classifier(
        self, tick: Int[Array, ""], pool: Pool, cohort: Cohort, classified: Classified
    ) -> tuple[Pool, Int[Array, " C"], Float[Array, "C D"]]:
        """Files the continuations, and advances sentences all of whose rows have theirs, as many as
        have room in a cohort; and the states of their new tokens, with where to write them."""
        stage = jnp.where(classified.leaves, CLASSIFIED, cohort.depths + 1)
        moved = (stage, jnp.full_like(stage, tick), cohort.depths, classified.plan)
        rows = put(pool.rows, cohort.rows, Rows(*moved, classified.continuations))
        pool = pool._replace(rows=rows)
        slots = first_slots(ready(pool), self.settings.cohort // pool.beam_size)
        part = take(pool, slots)
        shape = (len(slots), pool.beam_size)
        beams, parents = beam.advance(
            part.slots.sentences.beams,
            jax.tree.map(lambda x: x.reshape(*shape, -1), part.rows.continuations),
            part.rows.depth.reshape(shape),
            length_penalty=self.settings.length_penalty,
            eos_id=EOS,
        )
        of_slots = part.slots._replace(
            sentences=part.slots.sentences._replace(beams=beams),
            ancestors=follow(part.slots.ancestors, parents),
        )
        part, address, x = self._start_tokens(part._replace(slots=of_slots), slots, tick)
        return place(pool, slots, part), address, x

    def _start_tokens(
        self, part: Pool, slots: Int[Array, " A"], tick: Int[Array, ""]
    ) -> tuple[Pool, Int[Array, " R"], Float[Array, "R D"]]:
        """Lets the live rows of sentences in these slots wait for block 1 with their newest tokens;
        and the states of these, with where to write them."""
        (sentences, ceilings, ancestors), rows = part
        beams, stages, beam_size = sentences.beams, self.stages, self.settings.beam_size
        live = beam.live(beams).reshape(-1)
        plan = stages.halting.before_token(
            ceilings, sentences.numbers, beams.position, beams.limit, beam_size
        )
        zeros = jnp.zeros_like(rows.depth)
        rows = rows._replace(
            stage=jnp.where(live, 1, CLASSIFIED),
            since=zeros + tick,
            depth=zeros,
            plan=Plan(*(leaf.reshape(len(zeros), *leaf.shape[2:]) for leaf in plan)),
        )
        of_slots = part.slots._replace(ancestors=claim(ancestors, beams.position))

        positions = jnp.broadcast_to(beams.position[:, None], beams.log_probs.shape)
        x = self.model.embed(beam.last_tokens(beams, BOS), positions)
        rows_to_write = jnp.where(live, rows_of(slots, beam_size), stages.rows)
        address = stages.address(zeros, rows_to_write, positions.reshape(-1))
        return Pool(of_slots, rows), address, x.reshape(len(zeros), -1)

    def _idle_rows(self, slots: int) -> Rows:
        rule = self.stages.halting.rule
        beam_size = self.settings.beam_size
        return idle_rows(slots * beam_size, self.stages.continuations, rule.carry_width)
