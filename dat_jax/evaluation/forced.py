# SPDX-License-Identifier: Apache-2.0
"""Forced decoding: log-likelihoods of given translations at every exit, and the exits of a rule.

One teacher-forced pass runs all tokens through all blocks, so no state is a copy (aligned states).
The rule is asked about these states as the engine asks it, in a beam of 1. What the engine finds
for a rule whose tokens exit at several depths differs, since there later tokens attend to copies.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dat_jax.config import DecodingConfig
from dat_jax.data.batching import Batch
from dat_jax.data.vocabulary import PAD
from dat_jax.decoding.devices import weights_of
from dat_jax.decoding.halting import Halting
from dat_jax.decoding.memory import memory_of
from dat_jax.decoding.next_tokens import NextTokens
from dat_jax.decoding.search import Ids
from dat_jax.decoding.settings import SearchSettings
from dat_jax.decoding.sizing import limit_of, places_for, platform_of, room_for
from dat_jax.decoding.trained import TrainedModel, rows_on
from dat_jax.decoding.unstacked import UnstackedModel, Weights
from dat_jax.exits.questions import Plan, Rule
from dat_jax.model.transformer import Transformer
from dat_jax.runtime.jax_flags import our_modes
from dat_jax.teacher_forcing import Forward, forward, log_likelihood, map_exits, shifted
from dat_jax.types import Array, Float, Int, Params

_TOKENS = 1_024  # of a batch on each device, padding included; more if one pair has more
_LONGEST = 1 << 20
_FLOAT32 = 4  # bytes


class Forced(NamedTuple):
    """A given translation, token by token."""

    token_ll: np.ndarray  # [X, T] log-likelihood of each token at each exit
    exits: np.ndarray  # [T] the depth at which the rule lets it exit


class _Rows(NamedTuple):
    """Pairs of a batch, as arrays."""

    batch: Batch  # [B, S], [B, T]
    numbers: np.ndarray  # [B] of the sentences in their text
    limits: np.ndarray  # [B] maximum tokens that a search would allow


@our_modes()
def force(
    trained: TrainedModel,
    rule: Rule,
    sources: Sequence[Ids],
    targets: Sequence[Ids],
    decoding: DecodingConfig,
    numbers: Sequence[int] | None = None,
) -> list[Forced]:
    """Scores given translations.

    Args:
        trained: the model.
        rule: when tokens exit.
        sources: token ids that end with EOS, up to `longest` of them.
        targets: the translation of each source, the same.
        decoding: limits, and the shortlist by which a rule may be confident; log-likelihoods are
            over all tokens.
        numbers: of the sources in their text, from which chance follows; by default 0, 1 and so on.

    Returns:
        The scores of each translation, in their order.
    """
    numbers = range(len(sources)) if numbers is None else numbers
    found: dict[int, Forced] = {}
    for members, batch in batches(trained, sources, targets):
        size, room = batch.target.shape
        rows = _Rows(
            batch,
            np.resize(np.asarray([numbers[i] for i in members], np.int32), size),
            np.resize(
                np.asarray([limit_of(len(sources[i]), decoding) for i in members], np.int32), size
            ),
        )
        settings = SearchSettings(
            beam_size=decoding.beam_size,
            length_penalty=decoding.length_penalty,
            length=room,
            slots=1,
            refill=1,
            sizes=(decoding.beam_size,),
            shortlist=decoding.shortlist,
            trailing_gap=0.0,
            windows=(room,),
            projected=0,
        )
        placed = jax.device_put(rows, rows_on(trained.devices))
        scores = _force(trained.model, trained.params, weights_of(trained), rule, placed, settings)
        token_ll, exits = map(np.asarray, scores)
        for row, index in enumerate(members):
            length = len(targets[index])
            found[index] = Forced(token_ll[:, row, :length], exits[row, :length])
    return [found[index] for index in range(len(sources))]


def longest(trained: TrainedModel) -> int:
    """Returns the most tokens of a source or a translation that fit into half of the memory."""
    model, memory = trained.model.config, memory_of(trained.device) // 2
    heads = max(model.encoder_heads, model.decoder_heads)
    logits = 3 * trained.model.target_vocabulary_size
    states = 2 * (model.decoder_layers + 1) * model.decoder_dim

    def need(room: int) -> int:
        return _FLOAT32 * room * (3 * room * heads + logits + states)

    room = platform_of(trained.device).shortest_room
    while room < _LONGEST and need(2 * room) <= memory:
        room *= 2
    return room


def batches(
    trained: TrainedModel, sources: Sequence[Ids], targets: Sequence[Ids]
) -> Iterator[tuple[list[int], Batch]]:
    """Yields the indices of pairs, longest first, and a batch whose first rows they are. Its sizes
    are few, and its rows can be split among the devices of the model."""
    platform, devices = platform_of(trained.device), len(trained.devices)
    lengths = [max(len(s), len(t)) for s, t in zip(sources, targets, strict=True)]
    for room, members in _rooms(lengths, trained):
        size = devices * places_for(-(-len(members) // devices), platform)
        of_sources = _padded([sources[i] for i in members], size, room)
        yield members, Batch(of_sources, _padded([targets[i] for i in members], size, room))


def _rooms(lengths: Sequence[int], trained: TrainedModel) -> Iterator[tuple[int, list[int]]]:
    """Yields a room for tokens and the indices of pairs that fit it, longest first."""
    platform, devices = platform_of(trained.device), len(trained.devices)
    ordered = sorted(range(len(lengths)), key=lambda index: lengths[index], reverse=True)
    for room, members in groupby(ordered, key=lambda i: room_for(lengths[i], platform)):
        alike = list(members)
        most = devices * max(1, _TOKENS // room)
        for first in range(0, len(alike), most):
            yield room, alike[first : first + most]


def _padded(rows: Sequence[Ids], size: int, room: int) -> Int[np.ndarray, "B T"]:
    padded = np.full((size, room), PAD, np.int32)
    for row, ids in enumerate(rows):
        padded[row, : len(ids)] = ids
    return padded


@partial(jax.jit, static_argnames=("model", "settings"))
def _force(
    model: Transformer,
    params: Params,
    weights: Weights,
    rule: Rule,
    rows: _Rows,
    settings: SearchSettings,
) -> tuple[Float[Array, "X B T"], Int[Array, "B T"]]:
    outputs, target = forward(model, params, rows.batch), jnp.asarray(rows.batch.target)
    token_ll = map_exits(model, outputs, lambda _, logits: log_likelihood(logits, target))
    unstacked = UnstackedModel(model, weights, settings.projected)
    return token_ll, _exits(unstacked, rule, rows, outputs, settings)


def _exits(
    model: UnstackedModel, rule: Rule, rows: _Rows, outputs: Forward, settings: SearchSettings
) -> Int[Array, "B T"]:
    """Returns where each token exits: a step of the engine, for the tokens of all positions."""
    halting = Halting(model, rule, NextTokens(model, settings))
    inputs = shifted(jnp.asarray(rows.batch.target))
    positions = jnp.arange(inputs.shape[1])[None]
    states = jnp.concatenate([model.embed(inputs, positions)[None], outputs.states])
    states = states.reshape(len(states), inputs.size, -1)
    ceilings = halting.before_sentence(outputs.memory, jnp.asarray(rows.batch.source) != PAD)

    def of_tokens(values: Any) -> Array:
        return jnp.broadcast_to(values, inputs.shape).reshape(-1)

    plan = halting.before_token(
        of_tokens(ceilings[:, None]),
        of_tokens(rows.numbers[:, None]),
        of_tokens(positions),
        of_tokens(rows.limits[:, None]),
        beam_size=1,
    )
    plan = Plan(*(leaf[:, 0] for leaf in plan))
    exits, active = jnp.zeros(inputs.size, jnp.int32), jnp.ones(inputs.size, bool)
    found = halting.nothing_found()
    for depth in range(1, model.num_layers + 1):
        before, after = states[depth - 1], states[depth]
        plan, found = halting.after_block(depth, before, after, plan, found)
        halts = active & (plan.exit_at <= depth)
        exits = jnp.where(halts, depth, exits)
        active &= ~halts
    return exits.reshape(inputs.shape)
