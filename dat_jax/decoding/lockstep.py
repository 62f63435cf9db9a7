# SPDX-License-Identifier: Apache-2.0
"""The lockstep engine, the reference: all sentences in work take every step together.

A `lax.while_loop` over steps of one token (paper, appendix B). In each step the hypotheses' newest
tokens climb the blocks together. A token that exits keeps its state, which is what "copied upward"
comes to: the blocks above project their keys and values from it. A block runs if any live token
needs it, and then on all rows: an exit saves time only if all exit. Rows of done sentences, and
beams that hold no hypothesis yet, ask for nothing. Where sentences are done, the next ones come in:
each is at a position of its own, but all write to the same slot of their caches, which are rings.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.data.vocabulary import BOS, EOS, PAD
from dat_jax.decoding import beam
from dat_jax.decoding.ahead import sentence_exits, token_exits
from dat_jax.decoding.beam import BeamState, Hypotheses
from dat_jax.decoding.cache import (
    LayerCache,
    claim,
    empty_layer,
    follow,
    no_ancestors,
    visible,
    write,
)
from dat_jax.decoding.continuations import best_continuations
from dat_jax.decoding.parts import KeysValues, Parts, run_if
from dat_jax.decoding.queue import (
    Arrivals,
    Queue,
    harvest,
    next_arrivals,
    no_results,
    refill_is_due,
)
from dat_jax.decoding.work import Work, add_runs, no_work
from dat_jax.exits.policies import Policy, Signal
from dat_jax.model.transformer import Transformer
from dat_jax.types import Array, Bool, Int, Params


class _Sentences(NamedTuple):
    """What the slots hold."""

    places: jax.Array  # [B] in the queue; its size where there is no sentence
    numbers: jax.Array  # [B]
    exits: jax.Array  # [B] the depths above which none of their tokens goes
    memory: tuple[KeysValues, ...]  # of each block
    memory_mask: jax.Array  # [B, S]
    beams: BeamState
    ancestors: jax.Array  # [B, J, T] by the slots of the rings


class _Loop(NamedTuple):
    """What one step hands to the next."""

    step: jax.Array  # []
    next_place: jax.Array  # [] of the first sentence that is still in the queue
    sentences: _Sentences
    layers: tuple[LayerCache, ...]
    work: Work


class _Climb(NamedTuple):
    """Where a step's tokens got to."""

    logits: jax.Array  # [B, J, V] of the next token, at each token's exit
    exits: jax.Array  # [B, J] 0 where no live token is
    layers: tuple[LayerCache, ...]
    work: Work  # of all steps


@partial(
    jax.jit,
    static_argnames=("model", "beam_size", "length_penalty", "max_length", "slots", "refill"),
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
        slots: sentences in work at a time, B.
        refill: how many come in together.

    Returns:
        The best hypothesis of each sentence, [Q], and what was run for them: rows of done sentences
        and of empty slots are computed, but nobody needs them.
    """
    parts = Parts(model, params)

    def refill_and_step(carry: tuple[_Loop, Hypotheses]) -> tuple[_Loop, Hypotheses]:
        loop, results = carry
        old = loop.sentences
        arrivals = next_arrivals(queue, loop.next_place, beam.done(old.beams), refill)
        left = jax.tree.map(lambda leaf: leaf.at[arrivals.slots].get(mode="clip"), old.beams)
        places = old.places.at[arrivals.slots].get(mode="fill", fill_value=queue.size)
        new = _read(parts, policy, arrivals, beam_size, max_length)
        sentences = jax.tree.map(
            lambda old, new: old.at[arrivals.slots].set(new, mode="drop"), old, new
        )
        loop = loop._replace(
            next_place=loop.next_place + jnp.sum(arrivals.there), sentences=sentences
        )
        return jax.lax.while_loop(steps_on, step, loop), harvest(results, places, left)

    def unfinished(carry: tuple[_Loop, Hypotheses]) -> Bool[Array, ""]:
        loop, _ = carry
        return (loop.next_place < queue.count) | jnp.any(~beam.done(loop.sentences.beams))

    def steps_on(loop: _Loop) -> Bool[Array, ""]:
        done = beam.done(loop.sentences.beams)
        return jnp.any(~done) & ~refill_is_due(queue, loop.next_place, done, refill)

    def step(loop: _Loop) -> _Loop:
        beams, here = loop.sentences.beams, loop.step % max_length
        ancestors = claim(loop.sentences.ancestors, here)
        climb = _climb(parts, policy, loop, here, visible(ancestors))
        must_end = jnp.broadcast_to(beam.must_end(beams)[:, None], climb.exits.shape)
        continuations = best_continuations(
            climb.logits,
            beams.log_probs - jax.nn.logsumexp(climb.logits, axis=-1),
            must_end,
            2 * beam_size,
            eos_id=EOS,
            pad_id=PAD,
        )
        beams, parents = beam.advance(
            beams, continuations, climb.exits, length_penalty=length_penalty, eos_id=EOS
        )
        sentences = loop.sentences._replace(beams=beams, ancestors=follow(ancestors, parents))
        return _Loop(loop.step + 1, loop.next_place, sentences, climb.layers, climb.work)

    start = _empty(parts, queue, beam_size, max_length, slots)
    results = no_results(queue, max_length)
    end, results = jax.lax.while_loop(unfinished, refill_and_step, (start, results))
    return harvest(results, end.sentences.places, end.sentences.beams), end.work


def _empty(parts: Parts, queue: Queue, beam_size: int, max_length: int, slots: int) -> _Loop:
    """The state before the first sentence."""
    config, source_length = parts.config, queue.source.shape[1]
    heads, dtype = config.decoder_heads, jnp.dtype(config.dtype)
    zero, zeros = jnp.zeros((), jnp.int32), jnp.zeros(slots, jnp.int32)
    layer = empty_layer(slots, max_length, beam_size, heads, config.decoder_dim // heads, dtype)
    sentences = _Sentences(
        zeros + queue.size,
        zeros,
        zeros,
        parts.no_memory(slots, source_length),
        jnp.zeros((slots, source_length), bool),
        beam.init(zeros, beam_size, max_length, PAD),
        no_ancestors(slots, beam_size, max_length),
    )
    layers = (layer,) * config.num_layers
    return _Loop(zero, zero, sentences, layers, no_work(config.num_layers))


def _read(
    parts: Parts, policy: Policy, arrivals: Arrivals, beam_size: int, max_length: int
) -> _Sentences:
    """Runs the encoder, and projects its output for each block that some sentence can reach."""
    memory = parts.encode(arrivals.source, arrivals.mask)
    exits = sentence_exits(parts, policy, memory, arrivals.mask)
    return _Sentences(
        arrivals.places,
        arrivals.numbers,
        exits,
        parts.memory_keys_values(memory, exits),
        arrivals.mask,
        beam.init(arrivals.limits, beam_size, max_length, PAD),
        no_ancestors(len(exits), beam_size, max_length),
    )


def _climb(
    parts: Parts,
    policy: Policy,
    loop: _Loop,
    here: Int[Array, ""],
    self_mask: Bool[Array, "B J P"],
) -> _Climb:
    """Takes the newest token of each live hypothesis as far up as the policy says."""
    sentences, beams = loop.sentences, loop.sentences.beams
    tokens = beam.last_tokens(beams, BOS)
    x = parts.embed(tokens, jnp.broadcast_to(beams.position[:, None], tokens.shape))
    active = ~beam.done(beams)[:, None] & (beams.log_probs > -jnp.inf)
    exits, layers = jnp.zeros_like(tokens), []
    logits = jnp.zeros((*tokens.shape, parts.vocabulary_size), jnp.float32)
    ahead = token_exits(
        parts, policy, sentences.exits, sentences.numbers, beams.position, tokens.shape[1]
    )
    signal = jnp.zeros(())
    live, rows, work = jnp.sum(active), active.size, loop.work

    for depth in range(1, parts.num_layers + 1):
        needed = jnp.any(active)
        # With one depth for all tokens of a sentence, none attends to a copied state.
        of_use = needed if policy.signal.is_of_the_sentence else jnp.asarray(True)
        keys_values = run_if(of_use, partial(parts.self_keys_values, depth), x)
        cache = write(loop.layers[depth - 1], here, keys_values)
        layers.append(cache)
        run_block = partial(
            parts.block,
            depth,
            self_slots=cache,
            self_mask=self_mask,
            memory_slots=sentences.memory[depth - 1],
            memory_mask=sentences.memory_mask[:, None],
        )
        x = jnp.where(active[..., None], run_if(needed, run_block, x), x)
        work = add_runs(work, depth - 1, needed, jnp.sum(active), rows)

        if policy.signal is Signal.CLASSIFIER:
            new_logits = run_if(needed, partial(parts.classify, depth), x)
            logits = jnp.where(active[..., None], new_logits, logits)
            signal = jnp.max(jax.nn.softmax(logits), axis=-1)
            work = add_runs(work, parts.num_layers, needed, jnp.sum(active), rows)
        elif policy.signal is Signal.FIRST_STATE and depth == 1:
            signal = parts.token_logits(x)
        elif policy.signal is Signal.HALTING_UNIT and depth < parts.num_layers:
            signal = parts.halting_logit(depth, x)
        if policy.signal.is_ahead or depth == parts.num_layers:
            halts = active & (ahead <= depth)
        else:
            halts = active & policy.halts(depth, signal)
        exits = jnp.where(halts, depth, exits)
        active &= ~halts

    if policy.signal is not Signal.CLASSIFIER:
        logits = parts.classify_each(exits, x)
        runs = parts.tables_run(exits)
        work = add_runs(work, parts.num_layers, runs, live, rows)
    return _Climb(logits, exits, tuple(layers), work)
