# SPDX-License-Identifier: Apache-2.0
"""Searches that the engine must get right, and the slow twin's hypotheses for them."""

import functools
from typing import NamedTuple

import numpy as np
import pytest

from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.work import Work
from dat_jax.exits.questions import Rule
from dat_jax.exits.rules import (
    Confidence,
    Fixed,
    Margin,
    Patience,
    Schedule,
    SequenceMultinomial,
    Similarity,
    TokenGeometric,
    TokenMultinomial,
    Uniform,
)
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
from tests.decoding.plain_rules import (
    Hypothesis,
    PlainDecoder,
    draws_of,
    search_without_cache,
)


class Case(NamedTuple):
    """A search over SOURCE. Cases that differ only in a rule's numbers share a compilation."""

    kind: str
    beam_size: int
    rule: Rule

    def __str__(self) -> str:
        return f"{self.kind}-{self.rule}-beam{self.beam_size}"


CASES = [
    Case("post", 1, Fixed(1)),
    Case("post", 1, Fixed(2)),
    Case("post", 1, Fixed(3)),
    Case("post", 1, TokenGeometric((0.98, 0.97))),
    Case("post", 1, TokenGeometric((0.97, 0.98))),
    Case("post", 1, TokenGeometric((0.96, 0.9))),
    Case("pre", 3, Fixed(1)),
    Case("pre", 3, Fixed(2)),
    Case("pre", 3, Fixed(3)),
    Case("pre", 3, TokenGeometric((0.65, 0.05))),
    Case("pre", 3, TokenGeometric((0.9, 0.3))),
    Case("pre", 3, Confidence((0.51, 0.71))),
    Case("pre", 3, Confidence((0.7, 0.4))),
    Case("hidden", 3, TokenGeometric((0.82, 0.05))),
    Case("hidden", 3, TokenGeometric((0.97, 0.01))),
    Case("tied", 3, TokenMultinomial()),
    Case("tied", 3, Uniform(4, 0)),
    Case("tied", 3, Uniform(4, 1)),
    Case("per_exit", 1, SequenceMultinomial()),
    Case("per_exit", 3, SequenceMultinomial()),
    Case("per_exit", 1, Confidence((0.7, 0.7))),
    Case("per_exit", 1, Confidence((0.75, 0.75))),
    Case("tied", 1, Margin((0.5, 0.5, 0.5))),
    Case("pre", 3, Margin((0.3, 0.3))),
    Case("tied", 3, Similarity((0.8, 0.8))),
    Case("tied", 3, Patience(2)),
    Case("tied", 3, Schedule(4, 1)),
    Case("tied", 3, Schedule(4, 2)),
    Case("tied", 3, Schedule(3, 1)),
    Case("last", 1, Fixed(3)),
    Case("post, tempted", 1, TokenGeometric((0.97, 0.98))),
    Case("pre, tempted", 3, TokenGeometric((0.65, 0.05))),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)
one_of_a_kind = pytest.mark.parametrize(
    "case",
    [
        Case("post", 1, TokenGeometric((0.98, 0.97))),
        Case("post", 1, TokenGeometric((0.96, 0.9))),
        Case("pre", 3, Confidence((0.51, 0.71))),
        Case("tied", 3, TokenMultinomial()),
        Case("per_exit", 3, SequenceMultinomial()),
    ],
    ids=str,
)


SLOTS = 4  # fewer than there are sentences


GATHERED = {"sizes": (3,), "windows": (3,), "projected": 1}


@functools.cache
def masked(case: Case) -> tuple[Hypotheses, Work]:
    """Hypotheses of SOURCE by the plain algorithm: a block that any row needs runs on all rows,
    and attention reads all positions. All sentences start together, so their steps coincide."""
    return run(*case)


@functools.cache
def gathered(case: Case, shortlist: int = 0, trailing_gap: float = 0.0) -> tuple[Hypotheses, Work]:
    """The same, with blocks run only on the rows that need them, attention to a part of the
    positions, and states instead of keys and values in the upper blocks' caches. The last
    sentences enter one by one."""
    how = {"shortlist": shortlist, "trailing_gap": trailing_gap, **GATHERED}
    return run(*case, slots=SLOTS, refill=1, **how)


@functools.cache
def plain(case: Case, shortlist: int = 0, trailing_gap: float = 0.0) -> list[Hypothesis]:
    """Hypotheses of SOURCE by the slow twin."""
    model, params = make_model(case.kind)
    draws = draws_of(getattr(case.rule, "seed", 0), NUMBERS, MAX_LENGTH, case.beam_size)
    return [
        search_without_cache(
            PlainDecoder(
                model,
                params,
                SOURCE[row],
                case.rule,
                MAX_LENGTH,
                draws[row],
                shortlist,
                int(LIMITS[row]),
                trailing_gap,
            ),
            int(LIMITS[row]),
            case.beam_size,
            LENGTH_PENALTY,
        )
        for row in range(ROWS)
    ]


def assert_same(found: Hypotheses, expected: Hypotheses) -> None:
    """Asserts equal hypotheses; scores may differ by rounding."""
    for name in ("tokens", "exits", "lengths"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for name in ("log_probs", "scores"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4)


def assert_as_without_cache(found: Hypotheses, twins: list[Hypothesis]) -> None:
    """Asserts that the hypotheses of SOURCE are the slow twin's."""
    for row, expected in enumerate(twins):
        length = len(expected.tokens)
        assert found.lengths[row] == length
        assert tuple(found.tokens[row, :length].tolist()) == expected.tokens
        assert tuple(found.exits[row, :length].tolist()) == expected.exits
        assert (found.exits[row, length:] == 0).all()
        np.testing.assert_allclose(found.scores[row], expected.score, rtol=1e-4)
        np.testing.assert_allclose(found.log_probs[row], expected.log_prob, rtol=1e-4)
