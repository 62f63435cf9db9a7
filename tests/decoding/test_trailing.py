# SPDX-License-Identifier: Apache-2.0
"""Trailing hypotheses, far behind the best of their sentence, exit at the first exit."""

import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.decoding import beam
from dat_jax.exits.rules import Confidence, Margin, Similarity, TokenGeometric, Uniform
from tests.decoding.cases import Case, assert_as_without_cache, assert_same, gathered, plain

GAP = 0.7
CASES = [
    Case("pre", 3, Confidence((0.7, 0.4))),
    Case("pre", 3, TokenGeometric((0.9, 0.3))),
    Case("tied", 3, Uniform(4, 0)),
    Case("tied", 3, Similarity((0.8, 0.8))),
    Case("pre", 3, Margin((0.3, 0.2))),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_trailing_hypotheses_equal_the_search_without_cache(case: Case):
    assert_as_without_cache(gathered(case, trailing_gap=GAP)[0], plain(case, trailing_gap=GAP))


def test_trailing_hypotheses_with_a_shortlist_equal_the_search_without_cache():
    assert_as_without_cache(gathered(CASES[0], 6, GAP)[0], plain(CASES[0], 6, GAP))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fewer_tokens_climb_and_some_translations_change(case: Case):
    """Otherwise the tests above would prove little."""
    without, work = gathered(case)
    results, less = gathered(case, trailing_gap=GAP)
    assert less.rows[1:-1].sum() / less.rows[0] < work.rows[1:-1].sum() / work.rows[0]
    assert (results.scores != without.scores).any()


def test_no_hypothesis_trails_behind_a_gap_that_is_never_reached():
    assert_same(gathered(CASES[0], trailing_gap=1e3)[0], gathered(CASES[0])[0])


def test_the_only_hypothesis_never_trails():
    case = Case("pre", 1, Confidence((0.7, 0.7)))
    assert_same(gathered(case, trailing_gap=GAP)[0], gathered(case)[0])


def test_a_hypothesis_trails_from_the_gap_on_and_if_it_is_live():
    state = beam.init(jnp.array([9, 9, 0]), 3, 9, start_id=2)
    log_probs = jnp.array([[-1.0, -1.5, -2.0], [-3.0, -3.0, -jnp.inf], [-jnp.inf] * 3])
    trails = beam.trailing(state._replace(log_probs=log_probs), 0.5)
    np.testing.assert_array_equal(trails, [[0, 1, 1], [0, 0, 0], [0, 0, 0]])
