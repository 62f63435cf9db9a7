# SPDX-License-Identifier: Apache-2.0
"""Shortlists: the first exit proposes tokens, and deeper exits choose among them."""

import dataclasses

import numpy as np
import pytest

from configs.base import get_config
from dat_jax.config import Config, DecodingConfig
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.next_tokens import check_shortlist, suited
from dat_jax.errors import UserError
from dat_jax.exits.rules import Confidence, Fixed, Margin, Patience
from tests.decoding.cases import PROJECTED, SIZES, SLOTS, WINDOWS, Case, assert_same
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
from tests.decoding.plain_rules import PlainDecoder, draws_of, search_without_cache

V = 11
CASES = [
    Case("pre", 3, Confidence((0.7, 0.4))),
    Case("pre", 1, Confidence((0.7, 0.7))),
    Case("per_exit", 3, Confidence((0.75, 0.75))),
    Case("post, tempted", 1, Confidence((0.8, 0.8))),
    Case("pre", 3, Margin((0.3, 0.2))),
    Case("tied", 1, Patience(2)),
]
GATHERED = {"sizes": SIZES, "windows": WINDOWS, "projected": PROJECTED}


def found(case: Case, shortlist: int, **how) -> Hypotheses:
    return run(*case, slots=SLOTS, refill=1, shortlist=shortlist, **how)[0]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("how", [{}, GATHERED], ids=["masked", "gathered"])
def test_it_equals_the_search_without_cache(case: Case, how: dict):
    model, params = make_model(case.kind)
    shortlist = 2 * case.beam_size
    hypotheses = found(case, shortlist, **how)
    draws = draws_of(0, NUMBERS, MAX_LENGTH, case.beam_size)
    exits = set()
    for row in range(ROWS):
        twin = PlainDecoder(
            model, params, SOURCE[row], case.rule, MAX_LENGTH, draws[row], shortlist
        )
        expected = search_without_cache(twin, int(LIMITS[row]), case.beam_size, LENGTH_PENALTY)
        length = len(expected.tokens)
        assert hypotheses.lengths[row] == length
        assert tuple(hypotheses.tokens[row, :length].tolist()) == expected.tokens
        assert tuple(hypotheses.exits[row, :length].tolist()) == expected.exits
        np.testing.assert_allclose(hypotheses.scores[row], expected.score, rtol=1e-4)
        exits |= set(expected.exits)
    assert len(exits) > 1


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_shortlist_of_all_tokens_changes_nothing(case: Case):
    assert_same(found(case, V), found(case, 0))


def test_a_short_one_changes_some_translations():
    """Else the tests above would say little."""
    case = CASES[0]
    short, whole = found(case, 6), found(case, 0)
    assert (short.scores != whole.scores).any()


def test_only_the_first_exit_has_a_whole_classifier():
    case = CASES[0]
    _, work = run(*case, slots=SLOTS, refill=1, shortlist=6)
    assert work.rows[-1] == work.rows[0] < work.rows[:-1].sum()


def decoding(**changes) -> DecodingConfig:
    config = Config.from_dict(get_config().to_dict()).decoding
    return dataclasses.replace(config, **changes)


@pytest.mark.parametrize(
    ("rule", "settings", "complaint"),
    [
        (Confidence((0.5,)), {"beam_size": 4, "shortlist": 7}, "must be from 8 to 11"),
        (Confidence((0.5,)), {"beam_size": 4, "shortlist": 12}, "must be from 8 to 11"),
        (Fixed(2), {"beam_size": 1, "shortlist": 4}, "fixed:2 needs no classifier"),
    ],
)
def test_one_that_cannot_be_is_refused(rule, settings, complaint):
    with pytest.raises(UserError, match=complaint):
        check_shortlist(decoding(**settings), rule, V)


def test_a_run_has_its_shortlist_for_the_rules_that_take_one():
    settings = decoding(shortlist=8)
    assert suited(settings, Confidence((0.5,))).shortlist == 8
    assert suited(settings, Fixed(2)).shortlist == 0
