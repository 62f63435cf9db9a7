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

from dat_jax.data.vocabulary import EOS
from dat_jax.decoding import beam
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.continuous.packed import pack
from dat_jax.decoding.continuous.pool import (
    CLASSIFIED,
    IDLE,
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
from dat_jax.decoding.queue import Arrivals, Queue, first_slots, no_sentences, put, serve
from dat_jax.decoding.sizing import SearchSettings
from dat_jax.decoding.unstacked import UnstackedModel
from dat_jax.decoding.work import Work
from dat_jax.exits.questions import Plan, Rule
from dat_jax.model.transformer import Transformer
from dat_jax.types import Array, Float, Int, Params


class _State(NamedTuple):
    """All that a tick hands to the next."""

    pool: Pool
    stores: Stores
    counts: jax.Array  # [2, N + 1] runs of each stage, and the rows that needed them

    @property
    def tick(self) -> Int[Array, ""]:
        """The number of ticks so far."""
        return jnp.sum(self.counts[0])


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
    hypotheses, state = serve(
        queue,
        settings,
        engine.empty(queue),
        lambda state: state.pool.slots.tree.sentences,
        engine.admit,
        engine.tick,
    )
    runs, needed = state.counts
    return hypotheses, Work(runs, needed, runs * settings.cohort)


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
        zeros, sentences = jnp.zeros(slots, jnp.int32), no_sentences(queue, settings)
        pool = Pool(pack(Slots(sentences, zeros)), pack(self._idle_rows(slots)))
        return _State(pool, stores, jnp.zeros((2, self.model.num_layers + 1), jnp.int32))

    def admit(self, state: _State, arrivals: Arrivals) -> _State:
        """Runs the encoder, and lets the arrivals' rows wait for block 1 with their first token."""
        slots, sentences = arrivals.slots, arrivals.sentences
        memory = self.model.encode(arrivals.source, arrivals.mask)
        ceilings = self.stages.halting.before_sentence(memory, arrivals.mask)
        contents, rows = Slots(sentences, ceilings), self._idle_rows(len(slots))
        new, address, x = self._start_tokens(contents, rows, slots, state.tick)
        stores = Stores(
            state.stores.states.at[address].set(x, mode="drop"),
            put(state.stores.memory, slots, self.model.memory_attended(memory, ceilings)),
            put(state.stores.memory_mask, slots, arrivals.mask),
        )
        return state._replace(pool=place(state.pool, slots, new), stores=stores)

    def tick(self, state: _State) -> _State:
        """Runs the stage whose turn it is on the rows that have waited longest for it."""
        pool, stores, stages = state.pool, state.stores, self.stages
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
        return _State(
            pool,
            stores._replace(states=stores.states.at[address].set(x, mode="drop")),
            state.counts.at[:, stage_counted].add(jnp.stack([jnp.ones_like(needed), needed])),
        )

    def _gather(self, pool: Pool, stores: Stores, rows: Int[Array, " C"]) -> Cohort:
        """All that a stage needs of these rows."""
        slots = rows // self.settings.beam_size
        tokens, beams = pool.rows.take(rows), pool.slots.take(slots).tree.sentences.beams
        address = self.stages.address(tokens.tree.depth, rows, beams.position)
        x = stores.states.at[address].get(mode="clip")
        this = (rows % self.settings.beam_size)[:, None]
        log_probs, history = (
            beam.take_beams(of_beams, this)[:, 0] for of_beams in (beams.log_probs, beams.history)
        )
        return Cohort(rows, slots, beams.position, beams.limit, log_probs, history, tokens, x)

    def _after_block(
        self, tick: Int[Array, ""], pool: Pool, cohort: Cohort, passed: Passed
    ) -> tuple[Pool, Int[Array, " C"], Float[Array, "C D"]]:
        """The rows one block further up; and the states to write, with where."""
        tokens = cohort.tokens.tree
        depth = tokens.depth + 1
        stage = jnp.where(passed.leaves, self.stages.classifier_of(depth), depth + 1)
        moved = Rows(stage, jnp.full_like(stage, tick), depth, passed.plan, tokens.continuations)
        rows = put(pool.rows, cohort.rows, pack(moved))
        address = self.stages.address(depth, cohort.rows, cohort.positions)
        return pool._replace(rows=rows), address, passed.x

    def _after_classifier(
        self, tick: Int[Array, ""], pool: Pool, cohort: Cohort, classified: Classified
    ) -> tuple[Pool, Int[Array, " C"], Float[Array, "C D"]]:
        """Files the continuations, and advances sentences all of whose rows have theirs, as many as
        have room in a cohort; and the states of their new tokens, with where to write them."""
        depth = cohort.tokens.tree.depth
        stage = jnp.where(classified.leaves, CLASSIFIED, depth + 1)
        since = jnp.full_like(stage, tick)
        moved = Rows(stage, since, depth, classified.plan, classified.continuations)
        pool = pool._replace(rows=put(pool.rows, cohort.rows, pack(moved)))
        slots = first_slots(ready(pool), self.settings.cohort // pool.beam_size)
        part = take(pool, slots)
        contents, rows = part.slots.tree, part.rows.tree
        shape = (len(slots), pool.beam_size)
        beams, _ = beam.advance(
            contents.sentences.beams,
            jax.tree.map(lambda x: x.reshape(*shape, -1), rows.continuations),
            rows.depth.reshape(shape),
            eos_id=EOS,
        )
        contents = contents._replace(sentences=contents.sentences._replace(beams=beams))
        part, address, x = self._start_tokens(contents, rows, slots, tick)
        return place(pool, slots, part), address, x

    def _start_tokens(
        self, contents: Slots, rows: Rows, slots: Int[Array, " A"], tick: Int[Array, ""]
    ) -> tuple[Pool, Int[Array, " R"], Float[Array, "R D"]]:
        """The pool of these slots' contents and rows, the live ones waiting for block 1 with their
        newest tokens; and the states of these, with where to write them."""
        sentences, ceilings = contents
        beams, stages, beam_size = sentences.beams, self.stages, self.settings.beam_size
        live = beam.live(beams).reshape(-1)
        plan = stages.halting.before_token(
            ceilings, sentences.numbers, beams.position, beams.limit, beam_size
        )
        zeros = jnp.zeros_like(rows.depth)
        rows = rows._replace(
            stage=jnp.where(live, 1, IDLE),
            since=zeros + tick,
            depth=zeros,
            plan=Plan(*(leaf.reshape(len(zeros), *leaf.shape[2:]) for leaf in plan)),
        )

        positions = jnp.broadcast_to(beams.position[:, None], beams.log_probs.shape)
        x = self.model.embed(beams.tokens, positions)
        rows_to_write = jnp.where(live, rows_of(slots, beam_size), stages.rows)
        address = stages.address(zeros, rows_to_write, positions.reshape(-1))
        return Pool(pack(contents), pack(rows)), address, x.reshape(len(zeros), -1)

    def _idle_rows(self, slots: int) -> Rows:
        rule = self.stages.halting.rule
        beam_size = self.settings.beam_size
        return idle_rows(slots * beam_size, self.stages.continuations, rule.carry_width)
