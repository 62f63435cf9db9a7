# SPDX-License-Identifier: Apache-2.0
"""Shortlists: the first exit proposes tokens, and later exits choose among them."""

import dataclasses
import functools

import pytest

from configs.base import get_config
from dat_jax.config import Config, DecodingConfig
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.rule_settings import check_rule_settings, suited
from dat_jax.decoding.work import Work
from dat_jax.errors import UserError
from dat_jax.exits.rules import Confidence, Fixed, Margin, Patience
from tests.decoding.cases import (
    GATHERED,
    SLOTS,
    Case,
    assert_as_without_cache,
    assert_same,
    gathered,
    plain,
)
from tests.decoding.lively import run

V = 11
CASES = [
    Case("pre", 3, Confidence((0.7, 0.4))),
    Case("pre", 1, Confidence((0.7, 0.7))),
    Case("per_exit", 3, Confidence((0.75, 0.75))),
    Case("post, tempted", 1, Confidence((0.8, 0.8))),
    Case("pre", 3, Margin((0.3, 0.2))),
    Case("tied", 1, Patience(2)),
]


@functools.cache
def found(case: Case, shortlist: int) -> tuple[Hypotheses, Work]:
    return run(*case, slots=SLOTS, refill=1, shortlist=shortlist, **GATHERED)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_shortlist_equals_the_search_without_cache(case: Case):
    shortlist = 2 * case.beam_size
    twins = plain(case, shortlist)
    assert_as_without_cache(found(case, shortlist)[0], twins)
    assert len({exit for twin in twins for exit in twin.exits}) > 1


def test_a_shortlist_on_all_rows_equals_the_search_without_cache():
    case = CASES[0]
    everywhere, _ = run(*case, slots=SLOTS, refill=1, shortlist=6)
    assert_as_without_cache(everywhere, plain(case, 6))


@pytest.mark.parametrize("case", [CASES[0], CASES[-1]], ids=str)
def test_a_shortlist_of_all_tokens_changes_nothing(case: Case):
    assert_same(found(case, V)[0], gathered(case)[0])


def test_a_short_shortlist_changes_some_translations():
    """Otherwise the tests above would prove little."""
    case = CASES[0]
    assert (found(case, 6)[0].scores != gathered(case)[0].scores).any()


def test_only_the_first_exit_runs_the_whole_classifier():
    _, work = found(CASES[0], 6)
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
def test_an_impossible_shortlist_is_refused(rule, settings, complaint):
    with pytest.raises(UserError, match=complaint):
        check_rule_settings(decoding(**settings), rule, V)


def test_a_configured_shortlist_applies_only_to_rules_that_take_one():
    settings = decoding(shortlist=8)
    assert suited(settings, Confidence((0.5,))).shortlist == 8
    assert suited(settings, Fixed(2)).shortlist == 0
