# SPDX-License-Identifier: Apache-2.0
"""Both engines on random weights, with exits drawn from a distribution of a given mean.

Lengths are forced, so that engines and other systems do the same work, and what differs is how they
go about it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dat_jax import flops
from dat_jax.config import ModelConfig
from dat_jax.data.vocabulary import EOS
from dat_jax.decoding import continuous, lockstep
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.queue import Queue
from dat_jax.decoding.schedule import Sizes, refill_size
from dat_jax.decoding.work import Work, describe
from dat_jax.exits.policies import Policy, Uniform, register_policy
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.types import Array, Bool, Float, Params

_FIRST_WORD = 4


@register_policy
@dataclasses.dataclass(frozen=True)
class Drawn(Uniform):
    """Each token exits at a depth drawn from a distribution."""

    cumulative: tuple[Any, ...]  # the probability of exiting at depth 1, 2, ... N - 1 or below

    def halts(self, depth: int, signal: Float[Array, "*B"]) -> Bool[Array, "*B"]:
        """Whether the draw is within the share of the depths so far."""
        return signal < self.cumulative[depth - 1]


def drawn_exits(average_exit: float, num_layers: int) -> Drawn:
    """Exits with this mean, each depth being as much rarer than the one below as all others are."""
    depths = np.arange(1, num_layers + 1)
    low, high = -30.0, 30.0
    for _ in range(100):
        slope = (low + high) / 2
        shares = np.exp(slope * (depths - (num_layers if slope > 0 else 1)))
        shares /= shares.sum()
        low, high = (slope, high) if shares @ depths < average_exit else (low, slope)
    return Drawn(num_layers, 0, tuple(map(float, np.cumsum(shares)[:-1])))


class Task(NamedTuple):
    """A model, and sentences for it."""

    model: Transformer
    params: Params
    source: np.ndarray  # [B, S] without padding
    lengths: np.ndarray  # [B] of the translations, EOS counted

    def first(self, count: int) -> "Task":
        """The same with no more sentences than this."""
        return self._replace(source=self.source[:count], lengths=self.lengths[:count])


class Outcome(NamedTuple):
    """What a run did."""

    hypotheses: Hypotheses
    work: Work


def make_task(
    config: ModelConfig,
    vocabulary_size: int,
    sentences: int,
    source_length: int,
    target_length: int,
) -> Task:
    """Random weights by which EOS is never likely, and random sources, all of equal lengths."""
    model = Transformer(config, vocabulary_size, vocabulary_size)
    params = init_params(model, jax.random.key(0))
    table = params["classifiers"]["table"].at[..., EOS, :].set(0)
    params = params | {"classifiers": params["classifiers"] | {"table": table}}
    words = np.random.default_rng(0).integers(
        _FIRST_WORD, vocabulary_size, (sentences, source_length)
    )
    lengths = np.full(sentences, target_length, np.int32)
    return Task(model, params, words.astype(np.int32), lengths)


def vary_lengths(task: Task) -> Task:
    """The same with translations of all lengths from half of theirs to theirs."""
    generator = np.random.default_rng(1)
    lengths = generator.integers(-(-task.lengths // 2), task.lengths + 1)
    return task._replace(lengths=lengths.astype(np.int32))


def encode(task: Task, batch_size: int) -> Callable[[], None]:
    """The encoder alone, on one batch."""
    encoder = jax.jit(
        lambda params, source: task.model.apply(
            {"params": params}, source, source != 0, method="encode"
        )
    )
    return lambda: jax.block_until_ready(encoder(task.params, task.source[:batch_size]))


def in_lockstep(task: Task, policy: Policy, beam_size: int, slots: int) -> Callable[[], Outcome]:
    """The lockstep engine on all sentences, so many at a time."""
    return _runner(task, policy, beam_size, slots, lockstep.search)


def continuously(task: Task, policy: Policy, beam_size: int, sizes: Sizes) -> Callable[[], Outcome]:
    """The continuous engine on all sentences."""
    search = functools.partial(continuous.search, cohort_size=sizes.cohort)
    return _runner(task, policy, beam_size, sizes.slots, search)


def figures(task: Task, policy: Policy, outcome: Outcome) -> dict[str, Any]:
    """What a run did, by its own counts and by the paper's formula."""
    hypotheses, work = outcome
    config, tokens = task.model.config, int(hypotheses.lengths.sum())
    assert (hypotheses.lengths == task.lengths).all(), "a translation ended early"
    counted = sum(
        flops.translation(
            config,
            task.model.target_vocabulary_size,
            task.source.shape[1],
            np.asarray(exits[:length]),
            policy.signal,
        )
        for exits, length in zip(hypotheses.exits, task.lengths, strict=True)
    )
    return {
        "sentences": len(task.source),
        "tokens": tokens,
        "average_exit": round(float(hypotheses.exits.sum() / tokens), 3),
        "flops_per_token": counted / tokens,
    } | describe(work, tokens)


def _runner(
    task: Task,
    policy: Policy,
    beam_size: int,
    slots: int,
    search: Callable[..., tuple[Hypotheses, Work]],
) -> Callable[[], Outcome]:
    """An engine's search on all sentences."""
    sentences, source_length = task.source.shape
    numbers = np.arange(sentences, dtype=np.int32)
    queue = Queue(*map(jnp.asarray, (task.source, task.lengths, numbers, np.int32(sentences))))

    def run() -> Outcome:
        found = search(
            task.model,
            task.params,
            queue,
            policy=policy,
            beam_size=beam_size,
            length_penalty=1.0,
            max_length=int(task.lengths.max()),
            slots=slots,
            refill=refill_size(slots, source_length),
        )
        return Outcome(*jax.tree.map(np.asarray, found))

    return run
