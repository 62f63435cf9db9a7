# SPDX-License-Identifier: Apache-2.0
"""The lockstep engine, the reference: every sentence of a batch takes the same step together.

A `lax.while_loop` over time that ends when the last sentence is done (paper, appendix B). In each
step the hypotheses' newest tokens climb the blocks together. A token that exits keeps its state,
which is what "copied upward" comes to: the blocks above project their keys and values from it. A
block runs if any live token needs it, and then on all rows: an exit saves time only if all exit.
Rows of done sentences, and beams that hold no hypothesis yet, ask for nothing.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.data.vocabulary import BOS, EOS, PAD
from dat_jax.decoding import beam
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
from dat_jax.decoding.work import Work, add_runs, no_work
from dat_jax.exits.policies import Policy, Signal, Uniform
from dat_jax.exits.sampling import token_draws
from dat_jax.model.transformer import Transformer
from dat_jax.types import Array, Bool, Int, Params


class _Sentences(NamedTuple):
    """What is known of a batch before its first token."""

    numbers: jax.Array  # [B]
    memory_slots: tuple[KeysValues, ...]  # of each block
    memory_mask: jax.Array  # [B, 1, S]
    signal: jax.Array  # [B, 1, N] if it is one of the sentence; of no meaning otherwise


class _Loop(NamedTuple):
    """What one step hands to the next."""

    position: jax.Array  # [] tokens that every hypothesis has, unless it is done
    beams: BeamState
    layers: tuple[LayerCache, ...]
    ancestors: jax.Array  # [B, J, T]
    work: Work


class _Climb(NamedTuple):
    """Where a step's tokens got to."""

    logits: jax.Array  # [B, J, V] of the next token, at each token's exit
    exits: jax.Array  # [B, J] 0 where no live token is
    layers: tuple[LayerCache, ...]
    work: Work  # of all steps


@partial(jax.jit, static_argnames=("model", "beam_size", "length_penalty", "max_length"))
def search(
    model: Transformer,
    params: Params,
    source: Int[Array, "B S"],
    limits: Int[Array, " B"],
    numbers: Int[Array, " B"],
    *,
    policy: Policy,
    beam_size: int,
    length_penalty: float,
    max_length: int,
) -> tuple[Hypotheses, Work]:
    """Translates a batch by beam search, or greedily with a beam of 1.

    Args:
        model: the model.
        params: its parameters.
        source: padded source tokens; rows of nothing but padding are welcome.
        limits: the most tokens that each translation may have, EOS counted.
        numbers: the sentences' numbers in the text, from which chance follows if there is any.
        policy: when tokens exit.
        beam_size: hypotheses of a sentence, J.
        length_penalty: the exponent of the length that divides a log-probability.
        max_length: room for tokens, T; no limit may be greater.

    Returns:
        The best hypothesis of each sentence, and what was run for them: rows of done sentences and
        of padding are computed, but nobody needs them.
    """
    config, batch = model.config, source.shape[0]
    heads, dtype = config.decoder_heads, jnp.dtype(config.dtype)
    parts = Parts(model, params)
    sentences = _read(parts, policy, source, numbers)

    def step(loop: _Loop) -> _Loop:
        ancestors = claim(loop.ancestors, loop.position)
        climb = _climb(parts, policy, sentences, loop, visible(ancestors))
        must_end = jnp.broadcast_to(beam.must_end(loop.beams)[:, None], climb.exits.shape)
        continuations = best_continuations(
            climb.logits,
            loop.beams.log_probs - jax.nn.logsumexp(climb.logits, axis=-1),
            must_end,
            2 * beam_size,
            eos_id=EOS,
            pad_id=PAD,
        )
        beams, parents = beam.advance(
            loop.beams, continuations, climb.exits, length_penalty=length_penalty, eos_id=EOS
        )
        return _Loop(
            loop.position + 1,
            beams,
            climb.layers,
            follow(ancestors, parents),
            climb.work,
        )

    width = config.decoder_dim // heads
    empty = empty_layer(batch, max_length, beam_size, heads, width, dtype)
    start = _Loop(
        jnp.zeros((), jnp.int32),
        beam.init(limits, beam_size, max_length, PAD),
        (empty,) * config.num_layers,
        no_ancestors(batch, beam_size, max_length),
        no_work(config.num_layers),
    )
    end = jax.lax.while_loop(lambda loop: ~jnp.all(beam.done(loop.beams)), step, start)
    return beam.best(end.beams), end.work


def _read(
    parts: Parts, policy: Policy, source: Int[Array, "B S"], numbers: Int[Array, "B"]
) -> _Sentences:
    """Runs the encoder, and projects its output for each block that some sentence can reach."""
    source_mask = source != PAD
    memory = parts.encode(source, source_mask)
    signal = jnp.zeros(())
    if policy.signal is Signal.SENTENCE:
        signal = parts.sequence_logits(memory, source_mask)[:, None]

    memory_slots = []
    for depth in range(1, parts.num_layers + 1):
        reached = jnp.asarray(True)
        if policy.signal.is_of_the_sentence and depth > 1:
            reached = jnp.any(~policy.halts(depth - 1, signal))
        project = partial(parts.memory_keys_values, depth)
        memory_slots.append(run_if(reached, project, memory))
    return _Sentences(numbers, tuple(memory_slots), source_mask[:, None, :], signal)


def _climb(
    parts: Parts,
    policy: Policy,
    sentences: _Sentences,
    loop: _Loop,
    self_mask: Bool[Array, "B J P"],
) -> _Climb:
    """Takes the newest token of each live hypothesis as far up as the policy says."""
    tokens = beam.last_tokens(loop.beams, BOS)
    x = parts.embed(tokens, jnp.broadcast_to(loop.position, (1, tokens.shape[1])))
    active = ~beam.done(loop.beams)[:, None] & (loop.beams.log_probs > -jnp.inf)
    exits, layers = jnp.zeros_like(tokens), []
    logits = jnp.zeros((*tokens.shape, parts.vocabulary_size), jnp.float32)
    signal = _signal_ahead(policy, sentences, loop)
    live, rows, work = jnp.sum(active), active.size, loop.work

    for depth in range(1, parts.num_layers + 1):
        needed = jnp.any(active)
        # With one depth for all tokens of a sentence, none attends to a copied state.
        of_use = needed if policy.signal.is_of_the_sentence else jnp.asarray(True)
        keys_values = run_if(of_use, partial(parts.self_keys_values, depth), x)
        cache = write(loop.layers[depth - 1], loop.position, keys_values)
        layers.append(cache)
        run_block = partial(
            parts.block,
            depth,
            self_slots=cache,
            self_mask=self_mask,
            memory_slots=sentences.memory_slots[depth - 1],
            memory_mask=sentences.memory_mask,
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
        last = depth == parts.num_layers
        halts = active if last else active & policy.halts(depth, signal)
        exits = jnp.where(halts, depth, exits)
        active &= ~halts

    if policy.signal is not Signal.CLASSIFIER:
        logits = parts.classify_each(exits, x)
        runs = parts.tables_run(exits)
        work = add_runs(work, parts.num_layers, runs, live, rows)
    return _Climb(logits, exits, tuple(layers), work)


def _signal_ahead(policy: Policy, sentences: _Sentences, loop: _Loop) -> Array:
    """The signal as far as it is known before block 1."""
    if isinstance(policy, Uniform):
        positions = jnp.broadcast_to(loop.position, sentences.numbers.shape)
        return token_draws(policy.seed, sentences.numbers, positions, loop.beams.tokens.shape[1])
    return sentences.signal
