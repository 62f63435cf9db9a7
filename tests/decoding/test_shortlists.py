# SPDX-License-Identifier: Apache-2.0
"""Shortlists: the first exit proposes tokens, and later exits choose among them."""

import pytest

from dat_jax.exits.rules import Confidence, Margin, Patience
from tests.decoding.cases import (
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


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_shortlist_equals_the_search_without_cache(case: Case):
    shortlist = 2 * case.beam_size
    twins = plain(case, shortlist)
    assert_as_without_cache(gathered(case, shortlist)[0], twins)
    assert len({exit for twin in twins for exit in twin.exits}) > 1


def test_a_shortlist_on_all_rows_equals_the_search_without_cache():
    case = CASES[0]
    everywhere, _ = run(*case, slots=SLOTS, refill=1, shortlist=6)
    assert_as_without_cache(everywhere, plain(case, 6))


@pytest.mark.parametrize("case", [CASES[0], CASES[-1]], ids=str)
def test_a_shortlist_of_all_tokens_changes_nothing(case: Case):
    assert_same(gathered(case, V)[0], gathered(case)[0])


def test_a_short_shortlist_changes_some_translations():
    """Otherwise the tests above would prove little."""
    case = CASES[0]
    assert (gathered(case, 6)[0].scores != gathered(case)[0].scores).any()


def test_only_the_first_exit_runs_the_whole_classifier():
    _, work = gathered(CASES[0], 6)
    assert work.rows[-1] == work.rows[0] < work.rows[:-1].sum()
