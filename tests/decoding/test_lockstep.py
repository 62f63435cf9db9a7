# SPDX-License-Identifier: Apache-2.0
"""The lockstep engine against a search without cache, batch or loop on the device."""

import functools
import itertools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.data.vocabulary import PAD
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.lockstep import search
from dat_jax.exits.policies import (
    Confidence,
    Fixed,
    Policy,
    SequenceMultinomial,
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
from tests.decoding.plain_policies import (
    Hypothesis,
    PlainDecoder,
    draws_of,
    search_without_cache,
)


class Case(NamedTuple):
    """A search over SOURCE. Cases that differ in a policy's numbers alone compile once."""

    kind: str
    beam_size: int
    policy: Policy

    def __str__(self) -> str:
        return f"{self.kind}-{self.policy}-beam{self.beam_size}"


CASES = [
    Case("post", 1, Fixed(1)),
    Case("post", 1, Fixed(2)),
    Case("post", 1, Fixed(3)),
    Case("post", 1, TokenGeometric((0.98, 0.96))),
    Case("post", 1, TokenGeometric((0.97, 0.98))),
    Case("post", 1, TokenGeometric((0.9, 0.1))),
    Case("pre", 3, Fixed(1)),
    Case("pre", 3, Fixed(2)),
    Case("pre", 3, Fixed(3)),
    Case("pre", 3, TokenGeometric((0.65, 0.05))),
    Case("pre", 3, TokenGeometric((0.9, 0.3))),
    Case("pre", 3, Confidence((0.51, 0.71))),
    Case("pre", 3, Confidence((0.7, 0.4))),
    Case("tied", 1, TokenMultinomial()),
    Case("tied", 3, TokenMultinomial()),
    Case("tied", 3, Uniform(4, 0)),
    Case("tied", 3, Uniform(4, 1)),
    Case("per_exit", 1, SequenceMultinomial()),
    Case("per_exit", 3, SequenceMultinomial()),
    Case("per_exit", 1, Confidence((0.6, 0.6))),
    Case("per_exit", 1, Confidence((0.8, 0.8))),
    Case("last", 1, Fixed(3)),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


@functools.cache
def engine(case: Case) -> tuple[Hypotheses, int]:
    """What the engine makes of SOURCE."""
    return run(case.kind, case.beam_size, case.policy)


@functools.cache
def plain(case: Case) -> list[Hypothesis]:
    """What the slow twin makes of SOURCE."""
    model, params = make_model(case.kind)
    draws = draws_of(getattr(case.policy, "seed", 0), NUMBERS, MAX_LENGTH, case.beam_size)
    return [
        search_without_cache(
            PlainDecoder(model, params, SOURCE[row], case.policy, MAX_LENGTH, draws[row]),
            int(LIMITS[row]),
            case.beam_size,
            LENGTH_PENALTY,
        )
        for row in range(ROWS)
    ]


def assert_same(found: Hypotheses, expected: Hypotheses) -> None:
    """Equal but for the order of sums."""
    for name in ("tokens", "exits", "lengths"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for name in ("log_probs", "scores"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4)


@cases
def test_equals_the_search_without_cache(case: Case):
    found, _ = engine(case)
    for row, expected in enumerate(plain(case)):
        length = len(expected.tokens)
        assert found.lengths[row] == length
        assert tuple(found.tokens[row, :length].tolist()) == expected.tokens
        assert tuple(found.exits[row, :length].tolist()) == expected.exits
        assert (found.exits[row, length:] == 0).all()
        np.testing.assert_allclose(found.scores[row], expected.score, rtol=1e-4)
        np.testing.assert_allclose(found.log_probs[row], expected.log_prob, rtol=1e-4)


@cases
def test_a_block_runs_if_a_live_hypothesis_needs_it(case: Case):
    """And then on all rows: so many that a finished one that asked for more would show."""
    steps = itertools.zip_longest(*(twin.deepest for twin in plain(case)), fillvalue=0)
    assert engine(case)[1] == sum(map(max, steps)) * ROWS * case.beam_size


def test_the_cases_are_not_all_alike():
    """Else the tests above say little: exits are mixed, and each case finds something else."""
    everything = set()
    for case in CASES:
        found, _ = engine(case)
        everything.add(str((found.tokens.tolist(), found.exits.tolist())))
        depths = [set(exits[exits > 0].tolist()) for exits in found.exits]
        if not case.policy.signal.is_of_the_sentence:
            assert sum(len(depths_of_one) > 1 for depths_of_one in depths) >= 2, case
        if case.policy == SequenceMultinomial():
            assert set.union(*depths) == {1, 2, 3}
    same = 1  # a model with its last exit alone, and the same model exiting there
    assert len(everything) == len(CASES) - same


@pytest.mark.parametrize(
    ("kind", "beam_size", "policy"),
    [("post", 1, TokenGeometric), ("pre", 3, TokenGeometric), ("pre", 3, Confidence)],
)
@pytest.mark.parametrize(("depth", "thresholds"), [(1, (0, 1)), (2, (1, 0)), (3, (1, 1))])
def test_thresholds_per_depth_take_effect_at_their_depth(
    kind, beam_size, policy, depth, thresholds
):
    """Every exit at 1, at 2, at N = 3. A peer's thresholds were the same at every step."""
    found, rows_run = run(kind, beam_size, policy(tuple(map(float, thresholds))))
    expected, rows_expected = engine(Case(kind, beam_size, Fixed(depth)))
    assert_same(found, expected)
    assert rows_run == rows_expected
    np.testing.assert_array_equal(found.exits, np.where(found.tokens == PAD, 0, depth))


def test_exits_at_full_depth_are_those_of_a_model_without_lower_exits():
    expected, rows_expected = engine(Case("last", 1, Fixed(3)))
    for policy in (Fixed(3), TokenGeometric((1.0, 1.0))):
        found, rows_run = run("post", 1, policy)
        assert_same(found, expected)
        assert rows_run == rows_expected


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in CASES
        if isinstance(case.policy, (TokenGeometric, Confidence, Uniform, SequenceMultinomial))
    ],
    ids=str,
)
def test_a_sentence_does_not_see_its_neighbours(case: Case):
    together, _ = engine(case)
    for row in range(ROWS):
        place = ROWS - 1 - row
        source, limits, numbers = np.full_like(SOURCE, PAD), np.ones_like(LIMITS), NUMBERS * 0
        source[place], limits[place], numbers[place] = SOURCE[row], LIMITS[row], NUMBERS[row]
        alone, _ = run(case.kind, case.beam_size, case.policy, source, limits, numbers)
        assert_same(
            jax.tree.map(lambda x, place=place: x[place], alone),
            jax.tree.map(lambda x, row=row: x[row], together),
        )


@pytest.mark.parametrize(
    "case",
    [Case("post", 1, TokenGeometric((0.98, 0.96))), Case("per_exit", 1, SequenceMultinomial())],
    ids=str,
)
def test_padding_of_source_and_batch_changes_nothing(case: Case):
    wide = np.pad(SOURCE, ((0, 2), (0, 3)), constant_values=PAD)
    padded, _ = run(*case, wide, np.pad(LIMITS, (0, 2), constant_values=1), np.pad(NUMBERS, (0, 2)))
    assert_same(jax.tree.map(lambda x: x[:ROWS], padded), engine(case)[0])


@pytest.mark.parametrize(
    "policy", [Fixed(2), TokenGeometric((0.65, 0.05)), Confidence((0.51, 0.71))], ids=str
)
def test_no_cache_is_copied_in_the_loop(policy: Policy):
    """A reshape between a write and attention once made 4 copies of each array of a cache.

    What attention itself transposes for its products has another shape.
    """
    model, params = make_model("pre")
    lowered = search.lower(
        model,
        params,
        jnp.asarray(SOURCE),
        jnp.asarray(LIMITS),
        jnp.asarray(NUMBERS),
        policy=policy,
        beam_size=3,
        length_penalty=LENGTH_PENALTY,
        max_length=MAX_LENGTH,
    )
    program = lowered.compile().as_text() or ""
    before, rest = program.split("\nENTRY ")
    entry, after = rest.split("\n}\n", maxsplit=1)
    loop = before + after  # with its branches, and whatever they call
    assert "f32[6,2,21,4]" in loop
    copy_of_a_cache = r"= f32\[6,2,(21|7,3),4\]\S* copy\("
    assert re.search(copy_of_a_cache, entry)  # of the empty ones, before the loop
    assert not re.search(copy_of_a_cache, loop)
