# SPDX-License-Identifier: Apache-2.0
"""Trailing hypotheses, far behind the best of their sentence, exit at the first exit."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import get_config
from dat_jax.config import Config, DecodingConfig
from dat_jax.decoding import beam
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.rule_settings import check_rule_settings, suited
from dat_jax.decoding.work import Work
from dat_jax.errors import UserError
from dat_jax.exits.rules import (
    Confidence,
    Fixed,
    Margin,
    Rule,
    Schedule,
    SequenceMultinomial,
    Similarity,
    TokenGeometric,
    Uniform,
)
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

GAP = 0.7
CASES = [
    Case("pre", 3, Confidence((0.7, 0.4))),
    Case("pre", 3, TokenGeometric((0.9, 0.3))),
    Case("tied", 3, Uniform(4, 0)),
    Case("tied", 3, Similarity((0.8, 0.8))),
    Case("pre", 3, Margin((0.3, 0.2))),
]


@functools.cache
def found(case: Case, gap: float, shortlist: int = 0) -> tuple[Hypotheses, Work]:
    how = {"trailing_gap": gap, "shortlist": shortlist, **GATHERED}
    return run(*case, slots=SLOTS, refill=1, **how)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_trailing_hypotheses_equal_the_search_without_cache(case: Case):
    assert_as_without_cache(found(case, GAP)[0], plain(case, trailing_gap=GAP))


def test_trailing_hypotheses_with_a_shortlist_equal_the_search_without_cache():
    assert_as_without_cache(found(CASES[0], GAP, 6)[0], plain(CASES[0], 6, GAP))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fewer_tokens_climb_and_some_translations_change(case: Case):
    """Otherwise the tests above would prove little."""
    without, work = gathered(case)
    results, less = found(case, GAP)
    assert less.rows[1:-1].sum() / less.rows[0] < work.rows[1:-1].sum() / work.rows[0]
    assert (results.scores != without.scores).any()


def test_no_hypothesis_trails_behind_a_gap_that_is_never_reached():
    assert_same(found(CASES[0], 1e3)[0], gathered(CASES[0])[0])


def test_the_only_hypothesis_never_trails():
    case = Case("pre", 1, Confidence((0.7, 0.7)))
    assert_same(found(case, GAP)[0], gathered(case)[0])


def test_a_hypothesis_trails_from_the_gap_on_and_if_it_is_live():
    state = beam.init(jnp.array([9, 9, 0]), 3, 9, start_id=2)
    log_probs = jnp.array([[-1.0, -1.5, -2.0], [-3.0, -3.0, -jnp.inf], [-jnp.inf] * 3])
    trails = beam.trailing(state._replace(log_probs=log_probs), 0.5)
    np.testing.assert_array_equal(trails, [[0, 1, 1], [0, 0, 0], [0, 0, 0]])


def settings(**changes: float) -> DecodingConfig:
    return dataclasses.replace(Config.from_dict(get_config().to_dict()).decoding, **changes)


@pytest.mark.parametrize("rule", [Fixed(2), Schedule(4, 2), SequenceMultinomial()], ids=str)
def test_rules_under_which_nobody_copies_refuse_a_gap(rule: Rule):
    message = f"trailing_gap is 0.5, and under {rule} no token exits deeper than an earlier one"
    with pytest.raises(UserError, match=message):
        check_rule_settings(settings(trailing_gap=0.5), rule, 99)
    assert suited(settings(trailing_gap=0.5), rule).trailing_gap == 0
    assert suited(settings(trailing_gap=0.5), rule, {"trailing_gap"}).trailing_gap == 0.5


@pytest.mark.parametrize("rule", [Confidence((0.5,)), Uniform(4, 0)], ids=str)
def test_other_rules_take_a_gap(rule: Rule):
    check_rule_settings(settings(trailing_gap=0.5), rule, 99)
    assert suited(settings(trailing_gap=0.5), rule).trailing_gap == 0.5
