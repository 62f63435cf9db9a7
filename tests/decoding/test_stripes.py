# SPDX-License-Identifier: Apache-2.0
"""Several processes find the same hypotheses as one process."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from dat_jax.data.vocabulary import EOS
from dat_jax.decoding import search as one_process
from dat_jax.decoding import stripes
from dat_jax.decoding.search import SearchResult
from dat_jax.decoding.trained import TrainedModel
from dat_jax.exits.rules import Uniform
from tests.tiny import random_params, tiny_config, tiny_model

PROCESSES = 2
NUMBERS = range(100, 108)  # sentence numbers, evenly divided among the processes


def test_draws_follow_the_sentence_number_across_processes(monkeypatch: pytest.MonkeyPatch):
    """This process plays each process in turn; `sent` keeps the messages of the earlier ones."""
    model = tiny_model()
    config = tiny_config(decoding={"beam_size": 2, "max_length_ratio": 1.0, "max_length_extra": 4})
    trained = TrainedModel(config, model, random_params(model))
    sources = [[*np.arange(4, 6 + number % 3).tolist(), EOS] for number in range(len(NUMBERS))]
    sent: list[Any] = [None] * PROCESSES

    def search_as(process: int) -> SearchResult:
        def gather(value: Any) -> list[Any]:
            sent[process] = value
            return [part or value for part in sent]

        monkeypatch.setattr(stripes, "index", lambda: process)
        monkeypatch.setattr(stripes, "gather", gather)
        return stripes.search(
            trained,
            Uniform(3, 0),
            sources,
            config.decoding,
            numbers=NUMBERS,
            n_best=2,
            on_progress=lambda _: None,
        )

    alone = one_process.search(
        trained, Uniform(3, 0), sources, config.decoding, numbers=NUMBERS, n_best=2
    )
    monkeypatch.setattr(stripes, "count", lambda: PROCESSES)
    search_as(1)
    together = search_as(0)
    assert len({hypothesis.exits for hypothesis in alone.hypotheses}) > 1
    assert [one.exits for one in together.hypotheses] == [one.exits for one in alone.hypotheses]
    assert [one.tokens for one in together.hypotheses] == [one.tokens for one in alone.hypotheses]
    for one, other in zip(together.hypotheses, alone.hypotheses, strict=True):
        assert [h.tokens for h in one.n_best] == [h.tokens for h in other.n_best]
        assert dataclasses.replace(one, n_best=()) == one.n_best[0]
