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

from dat_jax.data.vocabulary import BOS, EOS, PAD
from dat_jax.decoding import beam
from dat_jax.decoding.ahead import sentence_exits, token_exits
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.cache import claim, follow
from dat_jax.decoding.parts import Parts
from dat_jax.decoding.pool import (
    CLASSIFIED,
    Pool,
    empty_pool,
    longest_waiting,
    place,
    ready,
    rows_of,
    take,
    waiting,
)
from dat_jax.decoding.queue import (
    Queue,
    first_slots,
    harvest,
    next_arrivals,
    no_results,
    refill_is_due,
)
from dat_jax.decoding.schedule import next_stage
from dat_jax.decoding.stages import Cohort, Outcome, Stages, Stores
from dat_jax.decoding.work import Work, add_runs, no_work
from dat_jax.exits.policies import Policy
from dat_jax.model.transformer import Transformer
from dat_jax.types import Array, Bool, Float, Int, Params


class _Loop(NamedTuple):
    """What one tick hands to the next."""

    pool: Pool
    stores: Stores
    next_place: jax.Array  # [] of the first sentence that is still in the queue
    tick: jax.Array  # []
    work: Work


@partial(
    jax.jit,
    static_argnames=(
        *("model", "beam_size", "length_penalty", "max_length"),
        *("cohort_size", "slots", "refill"),
    ),
)
def search(
    model: Transformer,
    params: Params,
    queue: Queue,
    *,
    policy: Policy,
    beam_size: int,
    length_penalty: float,
    max_length: int,
    cohort_size: int,
    slots: int,
    refill: int,
) -> tuple[Hypotheses, Work]:
    """Translates a queue by beam search, or greedily with a beam of 1.

    Args:
        model: the model.
        params: its parameters.
        queue: the sentences; how many there are needs no other program.
        policy: when tokens exit.
        beam_size: hypotheses of a sentence, J.
        length_penalty: the exponent of the length that divides a log-probability.
        max_length: room for tokens, T; no limit may be greater.
        cohort_size: rows that run together, a multiple of `beam_size`.
        slots: sentences in the pool, G, on which memory depends; several cohorts, or few stages
            have a full one waiting.
        refill: how many come in together.

    Returns:
        The best hypothesis of each sentence, [Q]; and what was run for them.
    """
    parts = Parts(model, params)
    stages = Stages(parts, policy, beam_size, slots * beam_size, max_length)
    return _Engine(parts, policy, stages, queue, length_penalty, cohort_size, slots, refill).run()


@dataclasses.dataclass(frozen=True)
class _Engine:
    """What stays the same from tick to tick."""

    parts: Parts
    policy: Policy
    stages: Stages
    queue: Queue
    length_penalty: float
    cohort_size: int
    slots: int
    refill: int

    def run(self) -> tuple[Hypotheses, Work]:
        """Admits and ticks until the queue and the pool are empty."""

        def admit_and_tick(carry: tuple[_Loop, Hypotheses]) -> tuple[_Loop, Hypotheses]:
            loop, results = carry
            loop, results = self._admit(loop, results)
            return jax.lax.while_loop(self._ticks_on, self._tick, loop), results

        def unfinished(carry: tuple[_Loop, Hypotheses]) -> Array:
            loop, _ = carry
            working = loop.pool.sentences.working
            return (loop.next_place < self.queue.count) | jnp.any(working)

        stages, zero = self.stages, jnp.zeros((), jnp.int32)
        pool = empty_pool(
            self.slots, stages.beam_size, stages.length, stages.found, self.queue.size
        )
        loop = _Loop(pool, self._empty_stores(), zero, zero, no_work(self.parts.num_layers))
        results = no_results(self.queue, stages.length)
        loop, results = jax.lax.while_loop(unfinished, admit_and_tick, (loop, results))
        sentences = loop.pool.sentences
        return harvest(results, sentences.place, sentences.beams), loop.work

    def _empty_stores(self) -> Stores:
        config, stages = self.parts.config, self.stages
        source_length = self.queue.source.shape[1]
        states = (config.num_layers + 1) * stages.rows * stages.length
        return Stores(
            jnp.zeros((states, config.decoder_dim), jnp.dtype(config.dtype)),
            self.parts.no_memory(self.slots, source_length),
            jnp.zeros((self.slots, source_length), bool),
        )

    def _ticks_on(self, loop: _Loop) -> Bool[Array, ""]:
        """Whether there is work, and not yet room for all that are admitted together."""
        working = loop.pool.sentences.working
        due = refill_is_due(self.queue, loop.next_place, ~working, self.refill)
        return jnp.any(working) & ~due

    def _admit(self, loop: _Loop, results: Hypotheses) -> tuple[_Loop, Hypotheses]:
        """Takes translations out of slots whose sentences are done, and lets the next ones in."""
        stages = self.stages
        free = ~loop.pool.sentences.working
        arrivals = next_arrivals(self.queue, loop.next_place, free, self.refill)
        slots = arrivals.slots
        left = take(loop.pool, slots).sentences
        results = harvest(results, left.place, left.beams)

        memory = self.parts.encode(arrivals.source, arrivals.mask)
        some = empty_pool(
            self.refill, stages.beam_size, stages.length, stages.found, self.queue.size
        )
        sentences = some.sentences._replace(
            place=arrivals.places,
            number=arrivals.numbers,
            working=arrivals.there,
            exits=sentence_exits(self.parts, self.policy, memory, arrivals.mask),
            beams=beam.init(arrivals.limits, stages.beam_size, stages.length, PAD),
        )
        some, address, x = self._start_tokens(some._replace(sentences=sentences), slots, loop.tick)
        states, memory_slots, memory_mask = loop.stores
        stores = Stores(
            states.at[address].set(x, mode="drop"),
            jax.tree.map(
                lambda old, new: old.at[slots].set(new, mode="drop"),
                memory_slots,
                self.parts.memory_keys_values(memory, sentences.exits),
            ),
            memory_mask.at[slots].set(arrivals.mask, mode="drop"),
        )
        pool, next_place = place(loop.pool, slots, some), loop.next_place + jnp.sum(arrivals.there)
        return loop._replace(pool=pool, stores=stores, next_place=next_place), results

    def _tick(self, loop: _Loop) -> _Loop:
        """Runs the stage whose turn it is on the rows that have waited longest for it."""
        pool, stores, stages = loop.pool, loop.stores, self.stages
        num_layers = self.parts.num_layers
        stage = 1 + next_stage(waiting(pool, stages.count), self.cohort_size)
        rows = longest_waiting(pool, stage, self.cohort_size)
        slots = rows // stages.beam_size
        positions = pool.sentences.beams.position.at[slots].get(mode="clip")
        depths = pool.rows.depth.at[rows].get(mode="clip")
        x = stores.states.at[stages.address(depths, rows, positions)].get(mode="clip")
        cohort = Cohort(rows, slots, positions, depths, x)

        outcome = stages.run(stage, pool, stores, cohort)
        # The stores stay out of the branches that write: there, XLA would copy them.
        after = (self._after_block, self._after_classifier)
        pool, address, x = jax.lax.cond(
            stage <= num_layers, *after, pool, cohort, outcome, loop.tick
        )
        return loop._replace(
            pool=pool,
            stores=stores._replace(states=stores.states.at[address].set(x, mode="drop")),
            tick=loop.tick + 1,
            work=add_runs(
                loop.work,
                jnp.minimum(stage, num_layers + 1) - 1,
                1,
                jnp.sum(rows < stages.rows),
                self.cohort_size,
            ),
        )

    def _after_block(
        self, pool: Pool, cohort: Cohort, outcome: Outcome, tick: Int[Array, ""]
    ) -> tuple[Pool, Int[Array, " C"], Float[Array, "C D"]]:
        """The rows one block further up; and the states to write, with where."""
        depths = cohort.depths + 1
        stage = jnp.where(outcome.leaves, self.stages.classifier_of(depths), depths + 1)
        rows = pool.rows
        rows = rows._replace(
            stage=rows.stage.at[cohort.rows].set(stage, mode="drop"),
            since=rows.since.at[cohort.rows].set(tick, mode="drop"),
            depth=rows.depth.at[cohort.rows].set(depths, mode="drop"),
            exit_ahead=rows.exit_ahead.at[cohort.rows].set(outcome.exit_ahead, mode="drop"),
        )
        address = self.stages.address(depths, cohort.rows, cohort.positions)
        return pool._replace(rows=rows), address, outcome.x

    def _after_classifier(
        self, pool: Pool, cohort: Cohort, outcome: Outcome, tick: Int[Array, ""]
    ) -> tuple[Pool, Int[Array, " C"], Float[Array, "C D"]]:
        """Files what was found, and advances sentences that have all their rows, as many as have
        room in a cohort; and the states of their new tokens, with where to write them."""
        stage = jnp.where(outcome.leaves, CLASSIFIED, cohort.depths + 1)
        rows = pool.rows
        rows = rows._replace(
            stage=rows.stage.at[cohort.rows].set(stage, mode="drop"),
            since=rows.since.at[cohort.rows].set(tick, mode="drop"),
            found=jax.tree.map(
                lambda old, new: old.at[cohort.rows].set(new, mode="drop"),
                rows.found,
                outcome.found,
            ),
        )
        pool = pool._replace(rows=rows)
        slots = first_slots(ready(pool), self.cohort_size // pool.beam_size)
        some = take(pool, slots)
        beams, parents = beam.advance(
            some.sentences.beams,
            jax.tree.map(lambda x: x.reshape(len(slots), pool.beam_size, -1), some.rows.found),
            some.rows.depth.reshape(len(slots), pool.beam_size),
            length_penalty=self.length_penalty,
            eos_id=EOS,
        )
        sentences = some.sentences._replace(
            working=some.sentences.working & ~beam.done(beams),
            beams=beams,
            ancestors=follow(some.sentences.ancestors, parents),
        )
        some, address, x = self._start_tokens(some._replace(sentences=sentences), slots, tick)
        return place(pool, slots, some), address, x

    def _start_tokens(
        self, some: Pool, slots: Int[Array, " A"], tick: Int[Array, ""]
    ) -> tuple[Pool, Int[Array, " R"], Float[Array, "R D"]]:
        """Lets the live rows of sentences in these slots wait for block 1 with their newest tokens;
        and the states of these, with where to write them."""
        sentences, rows = some
        beams, stages = sentences.beams, self.stages
        live = (sentences.working[:, None] & (beams.log_probs > -jnp.inf)).reshape(-1)
        zeros = jnp.zeros_like(rows.depth)
        rows = rows._replace(
            stage=jnp.where(live, 1, CLASSIFIED),
            since=zeros + tick,
            depth=zeros,
            exit_ahead=token_exits(
                self.parts,
                self.policy,
                sentences.exits,
                sentences.number,
                beams.position,
                stages.beam_size,
            ).reshape(-1),
        )
        ancestors = claim(sentences.ancestors, beams.position)
        sentences = sentences._replace(ancestors=ancestors)

        positions = jnp.broadcast_to(beams.position[:, None], beams.log_probs.shape)
        x = self.parts.embed(beam.last_tokens(beams, BOS), positions)
        rows_to_write = jnp.where(live, rows_of(slots, stages.beam_size), stages.rows)
        address = stages.address(zeros, rows_to_write, positions.reshape(-1))
        return Pool(sentences, rows), address, x.reshape(len(zeros), -1)
