# SPDX-License-Identifier: Apache-2.0
"""The beam search run step by step, over log-probabilities that depend only on the prefix."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from dat_jax.decoding import beam, history
from dat_jax.decoding.top_tokens import continuations, in_groups, top_tokens

PAD, EOS, START = 0, 3, 2
V = 9
T = 8


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-softmax over the last axis, in float32."""
    return (logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))).astype(np.float32)


def random_log_probs(seed: int, prefix: tuple[int, ...], *, ties: bool = False) -> np.ndarray:
    """Log-probabilities [V] that depend on every token of the prefix.

    With `ties` they are multiples of 1/2, so that many scores are exactly equal.
    """
    generator = np.random.default_rng([seed, len(prefix), *prefix])
    if ties:
        return -generator.integers(1, 4, V).astype(np.float32) / 2
    return log_softmax(generator.normal(size=V) * 2)


def exit_of(prefix: tuple[int, ...]) -> int:
    """A depth from 1 to 6 that depends on every token of the prefix."""
    return 1 + sum((i + 3) * token for i, token in enumerate(prefix)) % 6


init = functools.partial(jax.jit, static_argnums=(1, 2, 3))(beam.init)
entries = jax.jit(history.entries)


def step(state, log_probs_of):
    """Advances the state with log-probabilities and exits computed from the live prefixes."""
    sentences, beam_size = state.tokens.shape
    log_probs = np.zeros((sentences, beam_size, V), np.float32)
    exits = np.zeros((sentences, beam_size), np.int32)
    tokens, position = np.asarray(entries(state.history).tokens), np.asarray(state.position)
    for g, k in itertools.product(range(sentences), range(beam_size)):
        prefix = tuple(tokens[g, k, : position[g]].tolist())
        log_probs[g, k] = log_probs_of(g, prefix)
        exits[g, k] = exit_of(prefix)
    return advance(state, jnp.asarray(log_probs), jnp.asarray(exits))


def grouped(logits: jax.Array) -> jax.Array:
    """Logits in groups of tokens, as a decoder's classifiers return them."""
    return jnp.moveaxis(in_groups(jnp.moveaxis(logits, -1, 0), -jnp.inf), (0, 1), (-2, -1))


@jax.jit
def unfinished(state):
    return ~beam.done(state).all()


@jax.jit
def advance(state, log_probs, exits):
    count = min(2 * exits.shape[1], log_probs.shape[-1])
    top = top_tokens(grouped(log_probs), count, EOS)
    top = top._replace(normaliser=jnp.zeros_like(top.normaliser))  # already normalised
    positions, limits = state.position[:, None], state.limit[:, None]
    following = continuations(top, state.log_probs, positions, limits, EOS)
    return beam.advance(state, following, exits, eos_id=EOS)


def search(log_probs_of, limits: list[int], beam_size: int) -> beam.BeamState:
    state = init(np.asarray(limits), beam_size, T, START)
    while unfinished(state):
        state = step(state, log_probs_of)
    return state


def best(state: beam.BeamState, length_penalty: float = 1.0) -> beam.Hypotheses:
    """The best finished hypotheses, as numpy arrays."""
    return jax.tree.map(np.asarray, _best(state, length_penalty, PAD))


_best = jax.jit(beam.best, static_argnums=(1, 2))


def sequences(state: beam.BeamState, g: int) -> list[tuple[int, ...]]:
    """The tokens of the finished hypotheses of sentence `g`, in slot order."""
    lengths = np.asarray(state.finished_lengths)[g]
    tokens = np.asarray(entries(state.finished_history).tokens)[g]
    return [
        tuple(row[:length].tolist()) for row, length in zip(tokens, lengths, strict=True) if length
    ]
