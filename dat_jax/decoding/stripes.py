# SPDX-License-Identifier: Apache-2.0
"""One search by several processes: each searches its stripe, and all have all hypotheses."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dat_jax.config import DecodingConfig
from dat_jax.decoding import engines
from dat_jax.decoding.engines import Hypothesis, Ids, SearchResult
from dat_jax.decoding.sizing import Choice
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
    before: Work,
    on_progress: Callable[[int], object],
) -> SearchResult:
    """Searches as `engines.search` does, of P processes each every P-th source, with its own model.

    All processes call it alike. Hypotheses, work and choices are those of all; `busiest` and the
    time to compile are the greatest, settings its own.
    """
    mine = slice(index(), None, count())
    result = engines.search(
        trained,
        rule,
        sources[mine],
        decoding,
        numbers=numbers[mine],
        before=before,
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
    choices = Counter[Choice]()
    for engine, reason, sentences in (choice for part in parts for choice in part["choices"]):
        choices[Choice(engine, reason)] += sentences
    works = [Work(*map(np.asarray, part["work"])) for part in parts]
    return dataclasses.replace(
        result,
        hypotheses=tuple(hypotheses),
        work=sum_work(trained.model.config.decoder_layers, works),
        busiest=max(part["busiest"] for part in parts),
        choices=choices,
        seconds_compiling=max(part["seconds_compiling"] for part in parts),
    )


def _as_json(result: SearchResult) -> dict[str, Any]:
    return {
        "hypotheses": [dataclasses.astuple(hypothesis) for hypothesis in result.hypotheses],
        "work": [counts.tolist() for counts in result.work],
        "busiest": result.busiest,
        "choices": [[*choice, sentences] for choice, sentences in result.choices.items()],
        "seconds_compiling": result.seconds_compiling,
    }
