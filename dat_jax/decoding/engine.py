# SPDX-License-Identifier: Apache-2.0
"""The engine: all sentences in work take each step together; each block runs only active rows.

A step is one token of each hypothesis (paper, appendix B). The newest tokens climb the blocks under
a halting mask. A token that exits keeps its state, and the blocks above compute its keys and values
from that: this is the paper's copying of states. Each block runs on the rows that still climb,
gathered to one of a few sizes, so an exit saves time even while other tokens go deeper. Finished
sentences and empty beams cost nothing, and new sentences take their slots. Each sentence has its
own position, but all write to the same place of their caches.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.data.vocabulary import EOS
from dat_jax.decoding import beam
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.cache import Past, attend_memory, attend_past, past_of, write
from dat_jax.decoding.compaction import Rows, on_rows
from dat_jax.decoding.halting import Halting
from dat_jax.decoding.next_tokens import Found, NextTokens
from dat_jax.decoding.queue import Arrivals, Queue, Sentences, no_sentences, put, serve
from dat_jax.decoding.settings import SearchSettings
from dat_jax.decoding.top_tokens import TopTokens, continuations
from dat_jax.decoding.unstacked import Memory, UnstackedModel, Weights, no_values, run_if
from dat_jax.decoding.work import Work, add_run, no_work
from dat_jax.exits.questions import Plan, Rule
from dat_jax.model.attention import Attended
from dat_jax.model.transformer import Transformer
from dat_jax.types import Array, Bool, Float, Int


class _Slots(NamedTuple):
    """The contents of the slots."""

    sentences: Sentences
    ceilings: jax.Array  # [G] the maximum depth of their tokens
    memory: Memory
    memory_mask: jax.Array  # [G, S]


class _State(NamedTuple):
    """The state between two steps."""

    step: jax.Array  # []
    slots: _Slots
    caches: tuple[Attended, ...]  # of each block, with T J slots
    work: Work


class _Climb(NamedTuple):
    """The newest tokens on their way up."""

    x: jax.Array  # [R, D] their states
    plan: Plan  # [R]
    found: Found | None  # [R] the next tokens so far, if every block is followed by a classifier


@partial(jax.jit, static_argnames=("model", "settings"))
def search(
    model: Transformer, weights: Weights, rule: Rule, queue: Queue, settings: SearchSettings
) -> tuple[Hypotheses, Work]:
    """Translates a queue by beam search, or greedily with a beam of 1.

    Args:
        model: the model.
        weights: its parameters, by `unstack`.
        rule: when tokens exit.
        queue: the sentences; `count` does not change the program.
        settings: of the search.

    Returns:
        The best hypothesis of each sentence, [Q], or its `n_best`, [Q, n_best]; the work done.
    """
    unstacked = UnstackedModel(model, weights, settings.projected)
    halting = Halting(unstacked, rule, NextTokens(unstacked, settings))
    engine = _Engine(unstacked, halting, settings)
    hypotheses, state = serve(
        queue,
        settings,
        engine.empty(queue),
        lambda state: state.slots.sentences,
        engine.admit,
        engine.step,
    )
    return hypotheses, state.work


@dataclasses.dataclass(frozen=True)
class _Engine:
    """Everything that stays the same from step to step."""

    model: UnstackedModel
    halting: Halting
    settings: SearchSettings

    def empty(self, queue: Queue) -> _State:
        """Returns the state before the first sentence."""
        config, settings = self.model.config, self.settings
        slots, source_length = settings.slots, queue.source.shape[1]
        room = (slots, settings.length * settings.beam_size, config.decoder_dim)
        room = jax.ShapeDtypeStruct(room, jnp.dtype(config.dtype))
        caches = [
            no_values(partial(self.model.self_attended, depth), room)
            for depth in range(1, self.model.num_layers + 1)
        ]
        contents = _Slots(
            no_sentences(queue, settings),
            jnp.zeros(slots, jnp.int32),
            self.model.no_memory(slots, source_length),
            jnp.zeros((slots, source_length), bool),
        )
        zero = jnp.zeros((), jnp.int32)
        return _State(zero, contents, tuple(caches), no_work(config.decoder_layers))

    def admit(self, state: _State, arrivals: Arrivals) -> _State:
        """Runs the encoder and projects its output for the blocks that the sentences can reach."""
        memory = self.model.encode(arrivals.source, arrivals.mask)
        ceilings = self.halting.before_sentence(memory, arrivals.mask)
        projected = self.model.project_memory(memory, ceilings)
        new = _Slots(arrivals.sentences, ceilings, projected, arrivals.mask)
        return state._replace(slots=put(state.slots, arrivals.slots, new))

    def step(self, state: _State) -> _State:
        """Decodes the next token of each live hypothesis."""
        sentences = state.slots.sentences
        beams = sentences.beams
        top, exits, caches, work = self._climb(state)
        shape = beams.tokens.shape
        top = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), top)
        positions, limits = beams.position[:, None], beams.limit[:, None]
        following = continuations(top, beams.log_probs, positions, limits, EOS)
        beams = beam.advance(beams, following, exits.reshape(shape), eos_id=EOS)
        slots = state.slots._replace(sentences=sentences._replace(beams=beams))
        return _State(state.step + 1, slots, caches, work)

    def _climb(
        self, state: _State
    ) -> tuple[TopTokens, Int[Array, " R"], tuple[Attended, ...], Work]:
        """Runs the newest token of each live hypothesis up to its exit.

        Returns:
            The candidates for the next token at each token's exit, [R]; the exits, 0 for rows that
            are not live; the caches; the work of all steps so far.
        """
        model, halting, settings = self.model, self.halting, self.settings
        next_tokens = halting.next_tokens
        now, active, climb = self._start(state)
        past = past_of(state.slots.sentences.beams, now, settings.windows)
        exits, caches, work = jnp.zeros(settings.rows, jnp.int32), [], state.work

        for depth in range(1, model.num_layers + 1):
            with jax.named_scope(f"block_{depth}"):
                cache = self._write(depth, state.caches[depth - 1], now, climb.x, active)
                run = partial(self._run_block, depth, state.slots, cache, past, climb)
                climb, computed = on_rows(active, settings.sizes, run, climb)
            caches.append(cache)
            needed = jnp.sum(active)
            work = add_run(work, depth - 1, needed, computed)
            if halting.classifies_each_block and next_tokens.scores_all(depth):
                work = add_run(work, model.config.decoder_layers, needed, computed)
            halts = active & (climb.plan.exit_at <= depth)
            exits = jnp.where(halts, depth, exits)
            active &= ~halts

        found = climb.found
        if found is None:
            found, work = next_tokens.at_exits(climb.x, exits, work)
        return next_tokens.candidates(found), exits, tuple(caches), work

    def _start(self, state: _State) -> tuple[Int[Array, ""], Bool[Array, " R"], _Climb]:
        """Returns the place in the rings that this step writes, the live rows, and the rows' states
        before block 1."""
        sentences, rows = state.slots.sentences, self.settings.rows
        beams = sentences.beams
        positions = jnp.broadcast_to(beams.position[:, None], beams.tokens.shape)
        x = self.model.embed(beams.tokens, positions).reshape(rows, -1)
        plan = self.halting.before_token(
            state.slots.ceilings,
            sentences.numbers,
            beams.position,
            beams.limit,
            self.settings.beam_size,
        )
        if self.settings.trailing_gap:
            trails = beam.trailing(beams, self.settings.trailing_gap)
            plan = plan._replace(exit_at=jnp.where(trails, 1, plan.exit_at))
        plan = Plan(*(leaf.reshape(rows, *leaf.shape[2:]) for leaf in plan))
        now = state.step % self.settings.length
        return now, beam.live(beams).reshape(rows), _Climb(x, plan, self.halting.nothing_found())

    def _write(
        self,
        depth: int,
        cache: Attended,
        now: Int[Array, ""],
        x: Float[Array, "R D"],
        active: Bool[Array, " R"],
    ) -> Attended:
        """Writes a block's inputs to its cache, copied states included."""
        # Without copied states, only rows that are still active are ever attended to.
        of_use = jnp.asarray(True) if self.halting.copies_states else jnp.any(active)
        by_sentence = x.reshape(self.settings.slots, self.settings.beam_size, -1)
        return write(
            cache, now, run_if(of_use, partial(self.model.self_attended, depth), by_sentence)
        )

    def _run_block(
        self, depth: int, slots: _Slots, cache: Attended, past: Past, climb: _Climb, rows: Rows
    ) -> _Climb:
        """Runs block `depth` on these rows and asks the rule about them."""
        model, kernels = self.model, self.model.kernels(depth)
        before, plan, found = rows.take(climb)
        memory = model.memory_of(depth, slots.memory)
        x = model.block(
            depth,
            before[:, None],
            attend_past(cache, past, rows, self.settings.windows, kernels.self_attention),
            attend_memory(memory, slots.memory_mask, rows, kernels.memory_attention),
        )[:, 0]
        plan, found = self.halting.after_block(depth, before, x, plan, found)
        return _Climb(x, plan, found)
