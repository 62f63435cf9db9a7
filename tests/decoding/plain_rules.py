# SPDX-License-Identifier: Apache-2.0
"""The slow twin of the engine: decides exits token by token from whole forward passes.

One sentence at a time, without a cache: each prefix runs through the whole model again, with the
states of its earlier tokens copied upward from their exits. The newest token runs all blocks, and
the rule's definition then picks its exit.
"""

import dataclasses
import math
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dat_jax.data.vocabulary import BOS, EOS, PAD
from dat_jax.exits.questions import Rule
from dat_jax.exits.rules import (
    Confidence,
    Fixed,
    Margin,
    Patience,
    Schedule,
    SequenceMultinomial,
    Similarity,
    TokenGeometric,
    TokenMultinomial,
    Uniform,
)
from dat_jax.exits.sampling import token_draws
from dat_jax.model.classifiers import classify, weights_of_exit
from dat_jax.model.transformer import Transformer
from dat_jax.types import Params
from tests.decoding.plain_search import plain_search


class Outputs(NamedTuple):
    """The model's outputs for one sentence whose tokens exit at given depths."""

    log_probs: np.ndarray  # [X, T, V] of the next token, at each exit
    exit_logits: np.ndarray  # [N], [T, N] or [T, N-1], depending on the exit head; [0] without one
    states: np.ndarray  # [N + 1, T, D] before block 1 and after each block


class Hypothesis(NamedTuple):
    """The best hypothesis of one sentence, and the exits of all its hypotheses."""

    tokens: tuple[int, ...]
    exits: tuple[int, ...]
    log_prob: float
    score: float
    deepest: tuple[int, ...]  # at each step, the deepest exit of the live hypotheses
    all_exits: tuple[int, ...]  # of the newest token of every hypothesis that was ever live


@partial(jax.jit, static_argnums=0)
def _whole_pass(
    model: Transformer, params: Params, source: jax.Array, inputs: jax.Array, exit_depth: jax.Array
) -> Outputs:
    def run(model: Transformer) -> tuple[jax.Array, jax.Array, jax.Array]:
        memory = model.encode(source, source != PAD)
        states = model.states(inputs, memory, source != PAD, exit_depth=exit_depth)
        weights = model.classifier_weights()
        logits = [
            classify(weights_of_exit(weights, index), states[depth - 1])
            for index, depth in enumerate(model.config.exit_depths)
        ]
        exit_logits = jnp.zeros((1, 0))
        if model.config.exit_head != "none":
            exit_logits = model.exit_logits(memory, source != PAD, states)
        embedded = model.embed(inputs, jnp.arange(inputs.shape[1])[None])
        return jnp.stack(logits)[:, 0], exit_logits[0], jnp.concatenate([embedded, states[:, 0]])

    logits, exit_logits, states = model.apply({"params": params}, method=run)
    return Outputs(jax.nn.log_softmax(logits), exit_logits, states)


def whole_pass(
    model: Transformer,
    params: Params,
    source: np.ndarray,
    prefix: tuple[int, ...],
    exits: tuple[int, ...],
    max_length: int,
) -> Outputs:
    """Runs BOS and `prefix`, whose tokens exit at `exits`; padded so that it compiles once."""
    inputs = np.full((1, max_length), PAD, np.int32)
    inputs[0, : len(prefix) + 1] = (BOS, *prefix)
    exit_depth = np.full((1, max_length), model.config.decoder_layers, np.int32)
    exit_depth[0, : len(exits)] = exits
    outputs = _whole_pass(model, params, source[None], inputs, exit_depth)
    return Outputs(*map(np.asarray, outputs))


def choosing(log_probs: np.ndarray, shortlist: int) -> np.ndarray:
    """Log-probabilities [X, T, V] where later exits choose among the first exit's top words."""
    likely = log_probs[0].copy()
    likely[:, : EOS + 1] = np.inf  # special tokens are always proposed
    proposed = np.argsort(-likely, axis=-1, kind="stable")[:, : EOS + 1 + shortlist]
    chosen = np.full_like(log_probs, -np.inf)
    chosen[0] = log_probs[0]
    for index in range(1, len(log_probs)):
        among = np.take_along_axis(log_probs[index], proposed, axis=-1)
        among = among - np.log(np.exp(among).sum(axis=-1, keepdims=True))
        np.put_along_axis(chosen[index], proposed, among, axis=-1)
    return chosen


_token_draws = jax.jit(token_draws, static_argnums=3)


def draws_of(seed: int, numbers: np.ndarray, length: int, beams: int = 1) -> np.ndarray:
    """The draws [B, T, J] for sentences with these numbers, at their first `length` positions."""
    positions = np.tile(np.arange(length), len(numbers))
    draws = _token_draws(seed, jnp.asarray(np.repeat(numbers, length)), positions, beams)
    return np.asarray(draws).reshape(len(numbers), length, beams)


@dataclasses.dataclass
class PlainDecoder:
    """Next-token log-probabilities for prefixes of a sentence, and the exits of their tokens."""

    model: Transformer
    params: Params
    source: np.ndarray  # [S], padded
    rule: Rule
    max_length: int
    draws: np.ndarray  # [T, J] random draws, by position and beam
    shortlist: int = 0  # number of tokens that the first exit proposes to later ones; 0: all
    limit: int = 0  # maximum tokens of a translation, for a schedule
    trailing_gap: float = 0.0  # nats behind the best hypothesis; 0: none trails
    exits: dict[tuple[int, ...], tuple[int, ...]] = dataclasses.field(default_factory=dict)
    """The exits of BOS and every token, for each prefix seen so far."""
    following: dict[tuple[int, ...], np.ndarray] = dataclasses.field(default_factory=dict)
    """The log-probabilities [V] of the token after each prefix seen so far."""

    def log_probs(self, prefix: tuple[int, ...]) -> np.ndarray:
        """Log-probabilities [V] of the token after `prefix`; call it for each beam in order."""
        earlier = self.exits[prefix[:-1]] if prefix else ()
        exits = (*earlier, self.model.config.decoder_layers)
        outputs = whole_pass(self.model, self.params, self.source, prefix, exits, self.max_length)
        if self.shortlist:
            outputs = outputs._replace(log_probs=choosing(outputs.log_probs, self.shortlist))
        beam = sum(len(other) == len(prefix) for other in self.exits)
        exit_depth = 1 if self.trails(prefix) else self.exit_of(outputs, len(prefix), beam)
        self.exits[prefix] = (*earlier, exit_depth)
        index = self.model.config.exit_depths.index(exit_depth)
        self.following[prefix] = outputs.log_probs[index, len(prefix)]
        return self.following[prefix]

    def trails(self, prefix: tuple[int, ...]) -> bool:
        """True if the hypothesis is far behind the best, which is asked about first."""
        best = next((other for other in self.exits if len(other) == len(prefix)), prefix)
        behind = self.log_prob(best) - self.log_prob(prefix)
        return self.trailing_gap > 0 and behind >= self.trailing_gap

    def log_prob(self, prefix: tuple[int, ...]) -> float:
        """The log-probability of a hypothesis, summed over its tokens."""
        return float(sum(self.following[prefix[:n]][prefix[n]] for n in range(len(prefix))))

    def exit_of(self, outputs: Outputs, position: int, beam: int) -> int:
        """The exit of the token by the rules' definitions."""
        depths, first = self.model.config.decoder_layers, 1
        written = outputs.log_probs[:, position, EOS:]  # those of tokens that may be generated
        match self.rule:
            case Fixed(depth):
                return depth
            case Uniform():
                return 1 + int(self.draws[position, beam] * depths)
            case SequenceMultinomial():
                return 1 + int(np.argmax(outputs.exit_logits))
            case TokenMultinomial():
                return 1 + int(np.argmax(outputs.exit_logits[position]))
            case TokenGeometric(thresholds):
                signals = 1 / (1 + np.exp(-outputs.exit_logits[position]))
            case Confidence(thresholds):
                signals = np.exp(outputs.log_probs[:-1, position].max(axis=-1))
            case Margin(thresholds):
                ranked = np.sort(np.exp(written), axis=-1)
                signals = ranked[:-1, -1] - ranked[:-1, -2]
            case Similarity(thresholds):
                states = [h / np.sqrt(h @ h) for h in outputs.states[:, position]]
                signals = [states[n - 1] @ states[n] for n in range(2, depths)]
                first = 2
            case Patience(exits):
                likeliest = [int(np.argmax(row)) for row in written]
                alike = [n for n in range(exits, depths) if len(set(likeliest[n - exits : n])) == 1]
                return min(alike, default=depths)
            case Schedule(start, end):
                gone = Fraction(position, max(self.limit - 1, 1))
                return math.floor(start + (end - start) * gone + Fraction(1, 2))
        above = [n for n in range(first, depths) if signals[n - first] > thresholds[n - first]]
        return min(above, default=depths)


def search_without_cache(
    decoder: PlainDecoder, limit: int, beam_size: int, length_penalty: float
) -> Hypothesis:
    """The best hypothesis of the decoder's sentence."""
    finished = plain_search(decoder.log_probs, limit, beam_size, length_penalty)
    best = max(finished, key=lambda hypothesis: hypothesis.score)
    steps = max(map(len, decoder.exits)) + 1
    deepest = tuple(
        max(exits[-1] for exits in decoder.exits.values() if len(exits) == step)
        for step in range(1, steps + 1)
    )
    exits = decoder.exits[best.tokens[:-1]]
    all_exits = tuple(exits[-1] for exits in decoder.exits.values())
    return Hypothesis(best.tokens, exits, best.log_prob, best.score, deepest, all_exits)
