# SPDX-License-Identifier: Apache-2.0
"""Lists of the best hypotheses against a plain search, and against the search without lists."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from dat_jax.config import DecodingConfig
from dat_jax.decoding import beam
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.inputs import read_n_best
from dat_jax.decoding.search import search
from dat_jax.decoding.sizing import Platform
from dat_jax.decoding.trained import TrainedModel
from dat_jax.errors import UserError
from dat_jax.exits.rules import Confidence, TokenGeometric, Uniform
from tests.decoding import stepwise
from tests.decoding.cases import GATHERED, SLOTS, Case, assert_same, gathered
from tests.decoding.lively import (
    LENGTH_PENALTY,
    LIMITS,
    MAX_LENGTH,
    NUMBERS,
    ROWS,
    SOURCE,
    make_model,
    run,
)
from tests.decoding.plain_rules import PlainDecoder, draws_of
from tests.decoding.plain_search import Finished, plain_search
from tests.tiny import random_params, tiny_config, tiny_model

BEAM = 3


def ranked(finished: list[Finished]) -> list[Finished]:
    """The best first; of equal ones, the first to end."""
    return sorted(finished, key=lambda hypothesis: -hypothesis.score)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [2, 4])
def test_lists_are_those_of_a_plain_search(count: int, ties: bool):
    limits = [8, 1, 2, 8, 5, 8]

    def log_probs_of(g, prefix):
        return stepwise.random_log_probs(g, prefix, ties=ties)

    state = stepwise.search(log_probs_of, limits, 4)
    # Sums of powers of two, which are exact as they are and not when divided by lengths.
    found = beam.n_best(state, 0.0 if ties else 1.0, stepwise.PAD, count)
    for g, limit in enumerate(limits):
        rule = functools.partial(log_probs_of, g)
        expected = ranked(plain_search(rule, limit, 4, 0.0 if ties else 1.0))[:count]
        lengths = found.lengths[g].tolist()
        assert [n for n in lengths if n] == [len(hypothesis.tokens) for hypothesis in expected]
        assert lengths == sorted(lengths, key=lambda n: n == 0)  # missing ones come last
        for rank, hypothesis in enumerate(expected):
            length = len(hypothesis.tokens)
            assert tuple(found.tokens[g, rank, :length].tolist()) == hypothesis.tokens
            assert (found.tokens[g, rank, length:] == stepwise.PAD).all()
            assert found.exits[g, rank, :length].tolist() == [
                stepwise.exit_of(hypothesis.tokens[:t]) for t in range(length)
            ]
            np.testing.assert_allclose(found.scores[g, rank], hypothesis.score, rtol=1e-6)


@pytest.mark.parametrize(
    "case",
    [
        Case("pre", BEAM, TokenGeometric((0.65, 0.05))),
        Case("pre", BEAM, Confidence((0.51, 0.71))),
        Case("tied", BEAM, Uniform(4, 0)),
    ],
    ids=str,
)
def test_the_engine_gives_the_plain_search_s_lists_and_the_same_best(case: Case):
    found, work = run(*case, slots=SLOTS, refill=1, n_best=BEAM, **GATHERED)
    best, usual_work = gathered(case)
    assert_same(Hypotheses(*(leaf[:, 0] for leaf in found)), best)
    jax.tree.map(np.testing.assert_array_equal, work, usual_work)
    model, params = make_model(case.kind)
    draws = draws_of(getattr(case.rule, "seed", 0), NUMBERS, MAX_LENGTH, BEAM)
    for row in range(ROWS):
        decoder = PlainDecoder(model, params, SOURCE[row], case.rule, MAX_LENGTH, draws[row])
        finished = plain_search(decoder.log_probs, int(LIMITS[row]), BEAM, LENGTH_PENALTY)
        expected = ranked(finished)
        assert (found.lengths[row] > 0).sum() == len(expected)
        for rank, hypothesis in enumerate(expected):
            length = found.lengths[row, rank]
            assert tuple(found.tokens[row, rank, :length].tolist()) == hypothesis.tokens
            exits = decoder.exits[hypothesis.tokens[:-1]]
            assert tuple(found.exits[row, rank, :length].tolist()) == exits
            np.testing.assert_allclose(found.log_probs[row, rank], hypothesis.log_prob, rtol=1e-4)


HALVES = Platform(window=12, fewest_rows=8)  # 24 sources are two groups for one program
CONFIG = tiny_config(decoding={"beam_size": BEAM, "max_length_ratio": 1.0, "max_length_extra": 4})


def decoding(**changes: float) -> DecodingConfig:
    return dataclasses.replace(CONFIG.decoding, **changes)


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    model = tiny_model()
    return TrainedModel(CONFIG, model, random_params(model))


def test_lists_belong_to_their_sources_and_begin_with_the_best(trained: TrainedModel):
    """On all devices, in several groups, with a list shorter than the beam."""
    generator = np.random.default_rng(0)
    sources = [[*generator.integers(4, 11, n).tolist(), 3] for n in generator.integers(0, 15, 24)]
    in_two = functools.partial(
        search, trained, Uniform(3, 0), sources, CONFIG.decoding, platform=HALVES
    )
    usual = in_two()
    assert all(hypothesis.n_best == () for hypothesis in usual.hypotheses)
    listed = in_two(n_best=2)
    for one, other in zip(listed.hypotheses, usual.hypotheses, strict=True):
        assert dataclasses.replace(one, n_best=()) == one.n_best[0]
        assert (one.tokens, one.exits) == (other.tokens, other.exits)
        assert one.score == pytest.approx(other.score, rel=1e-6)
        scores = [hypothesis.score for hypothesis in one.n_best]
        assert scores == sorted(scores, reverse=True)
        assert len({hypothesis.tokens for hypothesis in one.n_best}) == len(one.n_best)
    # A blank source has one translation.
    assert {len(one.n_best) for one in listed.hypotheses} == {1, 2}
    one = in_two(n_best=1)
    assert one.hypotheses == usual.hypotheses
    assert one.settings == usual.settings


def test_no_list_is_longer_than_the_beam(trained: TrainedModel):
    with pytest.raises(
        UserError, match=r"n_best is 4 and beam_size is 3, .*: lower n_best, or set"
    ):
        search(trained, Uniform(3, 0), [[5, 3]], CONFIG.decoding, n_best=4)
    with pytest.raises(UserError, match="n_best is -1: must be 0 or more"):
        read_n_best(-1, 4)
    with pytest.raises(UserError, match="n_best is True: must be an integer"):
        read_n_best(True, 4)
    assert [read_n_best(count, 4) for count in range(5)] == [0, 0, 2, 3, 4]
