# SPDX-License-Identifier: Apache-2.0
"""The lockstep engine, the reference: all sentences in work take every step together.

A step is one token of each hypothesis (paper, appendix B). In it the hypotheses' newest tokens
climb the blocks together. A token that exits keeps its state, which is what "copied upward" comes
to: the blocks above project their keys and values from it. A block runs if any live token needs it,
and then on all rows: an exit saves time only if all exit. Rows of done sentences, and beams that
hold no hypothesis yet, ask for nothing. Where sentences are done, the next ones come in: each is at
a position of its own, but all write to the same slot of their caches, which are rings.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.data.vocabulary import EOS
from dat_jax.decoding import beam
from dat_jax.decoding.ancestry import claim, follow, no_ancestors, visible, write
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.halting import Halting
from dat_jax.decoding.queue import Arrivals, Queue, Sentences, no_sentences, put, serve
from dat_jax.decoding.sizing import SearchSettings
from dat_jax.decoding.top_tokens import TopTokens, continuations, top_tokens
from dat_jax.decoding.unstacked import MemoryAttended, UnstackedModel, no_values, run_if
from dat_jax.decoding.work import Work, add_runs, no_work
from dat_jax.exits.questions import Plan, Rule
from dat_jax.model.attention import Attended
from dat_jax.model.transformer import Transformer
from dat_jax.types import Array, Bool, Float, Int, Params


class _Slots(NamedTuple):
    """The slots' contents."""

    sentences: Sentences
    ceilings: jax.Array  # [B] the depth above which none of their tokens goes
    memory: MemoryAttended
    memory_mask: jax.Array  # [B, S]
    ancestors: jax.Array  # [B, J, T] by the slots of the rings


class _State(NamedTuple):
    """All that a step hands to the next."""

    step: jax.Array  # []
    slots: _Slots
    layers: tuple[Attended, ...]  # each block's cache, of P = T J slots
    work: Work


class _Climb(NamedTuple):
    """The outcome of a step's climb."""

    top: TopTokens  # [B, J, top] of the next token, at each token's exit
    exits: jax.Array  # [B, J] 0 where no live token is
    layers: tuple[Attended, ...]
    work: Work  # of all steps


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
        settings: how they are searched, and how many at a time.

    Returns:
        The best hypothesis of each sentence, [Q], and what was run for them: rows of done sentences
        and of empty slots are computed, but nobody needs them.
    """
    unstacked = UnstackedModel(model, params, settings.attended)
    engine = _Engine(unstacked, Halting(unstacked, rule), settings)
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
    """All that stays the same from step to step."""

    model: UnstackedModel
    halting: Halting
    settings: SearchSettings

    def empty(self, queue: Queue) -> _State:
        """The state before the first sentence."""
        config, settings = self.model.config, self.settings
        slots, source_length = settings.slots, queue.source.shape[1]
        cached = (slots, settings.length * settings.beam_size, config.decoder_dim)
        cached = jax.ShapeDtypeStruct(cached, jnp.dtype(config.dtype))
        layers = [
            no_values(partial(self.model.self_attended, depth), cached)
            for depth in range(1, self.model.num_layers + 1)
        ]
        contents = _Slots(
            no_sentences(queue, settings),
            jnp.zeros(slots, jnp.int32),
            self.model.no_memory(slots, source_length),
            jnp.zeros((slots, source_length), bool),
            no_ancestors(slots, settings.beam_size, settings.length),
        )
        zero = jnp.zeros((), jnp.int32)
        return _State(zero, contents, tuple(layers), no_work(self.model.num_layers))

    def admit(self, state: _State, arrivals: Arrivals) -> _State:
        """Runs the encoder, and projects its output for each block that some sentence can reach."""
        memory = self.model.encode(arrivals.source, arrivals.mask)
        ceilings = self.halting.before_sentence(memory, arrivals.mask)
        new = _Slots(
            arrivals.sentences,
            ceilings,
            self.model.memory_attended(memory, ceilings),
            arrivals.mask,
            no_ancestors(len(ceilings), self.settings.beam_size, self.settings.length),
        )
        return state._replace(slots=put(state.slots, arrivals.slots, new))

    def step(self, state: _State) -> _State:
        """Finds the next token of each live hypothesis."""
        ring_position = state.step % self.settings.length
        ancestors = claim(state.slots.ancestors, ring_position)
        climb = self._climb(state, ring_position, visible(ancestors))
        sentences = state.slots.sentences
        before = sentences.beams
        positions, limits = before.position[:, None], before.limit[:, None]
        beams, parents = beam.advance(
            before,
            continuations(climb.top, before.log_probs, positions, limits, EOS),
            climb.exits,
            eos_id=EOS,
        )
        slots = state.slots._replace(
            sentences=sentences._replace(beams=beams), ancestors=follow(ancestors, parents)
        )
        return _State(state.step + 1, slots, climb.layers, climb.work)

    def _climb(
        self,
        state: _State,
        ring_position: Int[Array, ""],
        self_mask: Bool[Array, "B J P"],
    ) -> _Climb:
        """Takes the newest token of each live hypothesis as far up as the rule says."""
        model, halting, sentences = self.model, self.halting, state.slots.sentences
        beams = sentences.beams
        positions = jnp.broadcast_to(beams.position[:, None], beams.tokens.shape)
        x = model.embed(beams.tokens, positions)
        active = beam.live(beams)
        plan = halting.before_token(
            state.slots.ceilings,
            sentences.numbers,
            beams.position,
            beams.limit,
            self.settings.beam_size,
        )
        exits, layers, work, top = jnp.zeros_like(positions), [], state.work, None
        live, rows = jnp.sum(active), active.size

        for depth in range(1, model.num_layers + 1):
            needed = jnp.any(active)
            with jax.named_scope(f"block_{depth}"):
                cache, after = self._pass_block(depth, state, ring_position, self_mask, x, needed)
            layers.append(cache)
            before, x = x, jnp.where(active[..., None], after, x)
            work = add_runs(work, depth - 1, needed, jnp.sum(active), rows)

            plan = halting.after_block(depth, before, x, plan)
            if halting.classifies_each_block:
                new = run_if(needed, partial(self._classify_and_ask, depth, plan), x)
                top, plan = _where(active, new, (top or new[0], plan))
                work = add_runs(work, model.num_layers, needed, jnp.sum(active), rows)
            halts = active & (plan.exit_at <= depth)
            exits = jnp.where(halts, depth, exits)
            active &= ~halts

        if top is None:
            with jax.named_scope("classifier"):
                top = self._top_tokens(model.classify_each(exits, x))
            runs = model.tables_run(exits)
            work = add_runs(work, model.num_layers, runs, live, rows)
        return _Climb(top, exits, tuple(layers), work)

    def _pass_block(
        self,
        depth: int,
        state: _State,
        ring_position: Int[Array, ""],
        self_mask: Bool[Array, "B J P"],
        x: Float[Array, "B J D"],
        needed: Bool[Array, ""],
    ) -> tuple[Attended, Float[Array, "B J D"]]:
        """Files states below a block in its cache, and runs it on them if that is needed."""
        model = self.model
        # Where no state is copied, none that left attends to a block above it.
        of_use = jnp.asarray(True) if self.halting.copies_states else needed
        attended = run_if(of_use, partial(model.self_attended, depth), x)
        cache = write(state.layers[depth - 1], ring_position, attended)
        run_block = partial(
            model.block,
            depth,
            self_attended=cache,
            self_mask=self_mask,
            memory_attended=model.memory_of(depth, state.slots.memory),
            memory_mask=state.slots.memory_mask,
        )
        return cache, run_if(needed, run_block, x)

    @jax.named_scope("classifier")
    def _classify_and_ask(
        self, depth: int, plan: Plan, x: Float[Array, "B J D"]
    ) -> tuple[TopTokens, Plan]:
        """Classifies states after block `depth`, and plans anew for what that says."""
        logits = self.model.classify(depth, x)
        top = self._top_tokens(logits)
        depths = jnp.full_like(plan.exit_at, depth)
        return top, self.halting.after_classifier(depths, logits, top, plan)

    def _top_tokens(self, logits: Float[Array, "B J groups grouped"]) -> TopTokens:
        count = min(2 * self.settings.beam_size, self.model.vocabulary_size)
        return top_tokens(logits, count, EOS)


def _where(rows: Bool[Array, "B J"], new: Any, old: Any) -> Any:
    """Picks between trees of arrays [B, J, ...] by row."""
    return jax.tree.map(
        lambda a, b: jnp.where(rows.reshape(rows.shape + (1,) * (a.ndim - 2)), a, b), new, old
    )
