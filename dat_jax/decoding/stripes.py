# SPDX-License-Identifier: Apache-2.0
"""One search by several processes: each takes every P-th source and receives all results."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from dat_jax.config import DecodingConfig
from dat_jax.decoding import search as one_process
from dat_jax.decoding.cost import DecodeCost
from dat_jax.decoding.search import Hypothesis, Ids, SearchResult
from dat_jax.decoding.sizing import Platform
from dat_jax.decoding.trained import TrainedModel
from dat_jax.exits.questions import Rule
from dat_jax.runtime.processes import count, gather, index


def search(
    trained: TrainedModel,
    rule: Rule,
    sources: Sequence[Ids],
    decoding: DecodingConfig,
    *,
    numbers: Sequence[int],
    platform: Platform | None = None,
    n_best: int,
    on_progress: Callable[[int], object],
) -> SearchResult:
    """Searches like `dat_jax.decoding.search.search`, with the work shared by all processes.

    All processes must call it with the same arguments. Hypotheses and cost are those of all
    processes, settings those of this one.
    """
    mine = slice(index(), None, count())
    result = one_process.search(
        trained,
        rule,
        sources[mine],
        decoding,
        numbers=numbers[mine],
        platform=platform,
        n_best=n_best,
        on_progress=lambda done: on_progress(done * count()),
    )
    if count() == 1:
        return result
    own = [dataclasses.astuple(hypothesis) for hypothesis in result.hypotheses]
    parts = gather({"hypotheses": own, "cost": result.cost.to_json()})
    hypotheses: list[Any] = [None] * len(sources)
    for number, part in enumerate(parts):
        hypotheses[number :: count()] = [_restored(*values) for values in part["hypotheses"]]
    costs = [DecodeCost.from_json(part["cost"]) for part in parts]
    cost = functools.reduce(DecodeCost.alongside, costs)
    return dataclasses.replace(result, hypotheses=tuple(hypotheses), cost=cost)


def _restored(
    tokens: Sequence[int],
    exits: Sequence[int],
    log_prob: float,
    score: float,
    n_best: Sequence[Any],
) -> Hypothesis:
    """Returns the hypothesis that another process sent as JSON."""
    others = tuple(_restored(*values) for values in n_best)
    return Hypothesis(tuple(tokens), tuple(exits), log_prob, score, others)
