# SPDX-License-Identifier: Apache-2.0
"""One search by several processes: each searches its stripe, and all have all hypotheses."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dat_jax.config import DecodingConfig
from dat_jax.decoding import search as one_process
from dat_jax.decoding.search import Hypothesis, Ids, SearchResult
from dat_jax.decoding.work import Work, sum_work
from dat_jax.exits.questions import Rule
from dat_jax.processes import count, gather, index
from dat_jax.trained import TrainedModel


def search(
    trained: TrainedModel,
    rule: Rule,
    sources: Sequence[Ids],
    decoding: DecodingConfig,
    *,
    numbers: Sequence[int],
    on_progress: Callable[[int], object],
) -> SearchResult:
    """Searches as `dat_jax.decoding.search` does, of P processes each every P-th source, with its own model.

    All processes call it alike. Hypotheses and work are those of all; `busiest` and the
    time to compile are the greatest, settings its own.
    """
    mine = slice(index(), None, count())
    result = one_process.search(
        trained,
        rule,
        sources[mine],
        decoding,
        numbers=numbers[mine],
        on_progress=lambda done: on_progress(done * count()),
    )
    if count() == 1:
        return result
    parts = gather(_as_json(result))
    hypotheses: list[Any] = [None] * len(sources)
    for number, part in enumerate(parts):
        hypotheses[number :: count()] = [
            Hypothesis(tuple(tokens), tuple(exits), log_prob, score)
            for tokens, exits, log_prob, score in part["hypotheses"]
        ]
    works = [Work(*map(np.asarray, part["work"])) for part in parts]
    return dataclasses.replace(
        result,
        hypotheses=tuple(hypotheses),
        work=sum_work(trained.model.config.decoder_layers, works),
        busiest=max(part["busiest"] for part in parts),
        seconds_compiling=max(part["seconds_compiling"] for part in parts),
    )


def _as_json(result: SearchResult) -> dict[str, Any]:
    return {
        "hypotheses": [dataclasses.astuple(hypothesis) for hypothesis in result.hypotheses],
        "work": [counts.tolist() for counts in result.work],
        "busiest": result.busiest,
        "seconds_compiling": result.seconds_compiling,
    }
