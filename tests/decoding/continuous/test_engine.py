# SPDX-License-Identifier: Apache-2.0
"""The continuous engine against the lockstep engine and the search without a cache."""

import functools
import re

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given

from dat_jax.data.vocabulary import EOS, PAD
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.continuous.engine import search
from dat_jax.decoding.work import Work
from dat_jax.exits.rules import (
    Confidence,
    Fixed,
    SequenceMultinomial,
    TokenGeometric,
    TokenMultinomial,
    Uniform,
)
from tests.decoding.cases import (
    CASES,
    SLOTS,
    Case,
    assert_as_without_cache,
    assert_same,
    cases,
    in_lockstep,
    one_of_a_kind,
    plain,
)
from tests.decoding.lively import (
    LIMITS,
    MAX_LENGTH,
    NUMBERS,
    ROOM,
    ROWS,
    SOURCE,
    make_model,
    make_queue,
    run,
    run_continuous,
    settings,
)

COHORTS = {1: 3, 3: 6}  # by the beam size; neither a sentence nor all that are in the pool


@functools.cache
def engine(case: Case) -> tuple[Hypotheses, Work]:
    """Hypotheses of SOURCE by the engine, with more sentences than slots and more rows than run."""
    return run_continuous(*case, cohort=COHORTS[case.beam_size], slots=SLOTS)


@cases
def test_equals_the_search_without_cache(case: Case):
    assert_as_without_cache(engine(case)[0], case)


@cases
def test_equals_the_lockstep_engine(case: Case):
    assert_same(engine(case)[0], in_lockstep(case)[0])


@one_of_a_kind
def test_a_memory_of_states_changes_nothing(case: Case):
    sizes = {"cohort": COHORTS[case.beam_size], "slots": SLOTS}
    found, work = run_continuous(*case, **sizes, attended="states")
    assert_same(found, engine(case)[0])
    np.testing.assert_array_equal(work.rows, engine(case)[1].rows)


@cases
def test_it_runs_just_the_rows_that_are_needed(case: Case):
    """Each live hypothesis' newest token up to its exit, and its classifier, or with confidence
    the classifier of each depth."""
    exits = np.asarray([exit for twin in plain(case) for exit in twin.all_exits])
    blocks = [(exits >= depth).sum() for depth in range(1, len(engine(case)[1].rows))]
    by_confidence = isinstance(case.rule, Confidence)
    needed = [*blocks, exits.sum() if by_confidence else len(exits)]
    continuous, lockstep = engine(case)[1], in_lockstep(case)[1]
    np.testing.assert_array_equal(continuous.rows, needed)
    np.testing.assert_array_equal(continuous.computed, continuous.ticks * COHORTS[case.beam_size])
    np.testing.assert_array_equal(lockstep.rows, needed)
    assert (lockstep.computed >= lockstep.rows).all()
    assert lockstep.computed[0] > lockstep.rows[0]  # some sentence was done before the others


@pytest.mark.parametrize(
    ("case", "cohort", "slots", "refill"),
    [
        (Case("pre", 3, TokenGeometric((0.65, 0.05))), 6, 2, 2),
        (Case("post", 1, TokenGeometric((0.98, 0.97))), 12, 8, 8),
        (Case("tied", 1, TokenMultinomial()), 1, 1, 1),
        (Case("tied", 3, Uniform(4, 0)), 12, 8, 1),
    ],
    ids=str,
)
def test_sizes_change_nothing(case: Case, cohort: int, slots: int, refill: int):
    """Fewer slots than sentences, cohorts of one sentence, fewer rows than a cohort has."""
    found, work = run_continuous(*case, cohort=cohort, slots=slots, refill=refill)
    assert_same(found, engine(case)[0])
    np.testing.assert_array_equal(work.rows, engine(case)[1].rows)
    np.testing.assert_array_equal(work.computed, work.ticks * cohort)


@pytest.mark.parametrize("count", range(ROWS + 1))
def test_a_queue_may_have_room_for_more_than_there_are(count: int):
    """And there may be more slots than sentences."""
    case = Case("pre", 3, TokenGeometric((0.65, 0.05)))
    queue = make_queue(SOURCE[:count], LIMITS[:count], NUMBERS[:count])
    found, work = run_continuous(*case, queue, cohort=COHORTS[3], slots=SLOTS)
    assert_same(found, jax.tree.map(lambda x: x[:count], engine(case)[0]))
    tokens = sum(len(twin.all_exits) for twin in plain(case)[:count])
    assert work.rows[0] == work.rows[-1] == tokens


@pytest.mark.parametrize(
    ("kind", "beam_size", "rule"),
    [("post", 1, TokenGeometric), ("pre", 3, TokenGeometric), ("pre", 3, Confidence)],
)
@pytest.mark.parametrize(("depth", "thresholds"), [(1, (0, 1)), (2, (1, 0)), (3, (1, 1))])
def test_thresholds_per_depth_take_effect_at_their_depth(kind, beam_size, rule, depth, thresholds):
    """Every exit at 1, at 2, at N = 3."""
    found, work = engine(Case(kind, beam_size, rule(tuple(map(float, thresholds)))))
    expected, expected_work = engine(Case(kind, beam_size, Fixed(depth)))
    assert_same(found, expected)
    np.testing.assert_array_equal(work.rows[:-1], expected_work.rows[:-1])
    np.testing.assert_array_equal(found.exits, np.where(found.tokens == PAD, 0, depth))
    assert (work.ticks[depth:-1] == 0).all()


def test_exits_at_full_depth_are_those_of_a_model_without_lower_exits():
    expected, _ = engine(Case("last", 1, Fixed(3)))
    for rule in (Fixed(3), TokenGeometric((1.0, 1.0))):
        assert_same(engine(Case("post", 1, rule))[0], expected)


def test_a_beam_may_be_wider_than_the_vocabulary():
    """At first there are fewer hypotheses than rows, and fewer continuations than are ranked."""
    case = Case("tied", 12, Uniform(4, 0))
    found, work = run_continuous(*case, cohort=24, slots=SLOTS)
    assert_same(found, in_lockstep(case)[0])
    np.testing.assert_array_equal(work.rows, in_lockstep(case)[1].rows)


def test_the_cases_hold_the_extremes():
    """A source without words, and translations as long as there is room."""
    assert (SOURCE[:, 0] == EOS).any()
    lengths = np.stack([engine(case)[0].lengths for case in CASES])
    assert (lengths == MAX_LENGTH).any()
    assert (lengths == 1).any()


SIZES = {
    "post": {"slots": 16, "cohort": 5, "refill": 2},
    "pre": {"slots": 16, "cohort": 12, "refill": 2},
    "tied": {"slots": 8, "cohort": 12, "refill": 1},
}
tau = st.integers(0, 20).map(lambda twentieths: twentieths / 20)
rules = {
    ("post", 1): st.builds(TokenGeometric, st.tuples(tau, tau)),
    ("pre", 3): st.builds(Confidence, st.tuples(tau, tau)),
    ("tied", 3): st.builds(Uniform, st.just(4), st.integers(0, 2**31 - 1)),
}


@st.composite
def sentences(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources, limits and numbers of some sentences."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, longest = draw(st.integers(1, ROOM)), draw(st.integers(1, SOURCE.shape[1]))
    source = generator.integers(EOS + 1, 11, (count, SOURCE.shape[1]))
    lengths = generator.integers(1, longest + 1, count)
    positions = np.arange(SOURCE.shape[1])[None]
    source = np.where(positions < lengths[:, None] - 1, source, PAD)
    source = np.where(positions == lengths[:, None] - 1, EOS, source)
    limits = generator.integers(1, draw(st.integers(1, MAX_LENGTH)) + 1, count)
    numbers = generator.integers(0, 2**31, count)
    return tuple(array.astype(np.int32) for array in (source, limits, numbers))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "beam_size"), rules)
@hypothesis.settings(
    derandomize=True
)  # scores that differ by a rounding error may come in either order
@given(data=st.data())
def test_equals_the_lockstep_engine_on_whatever_there_is(kind, beam_size, data: st.DataObject):
    rule, some = data.draw(rules[kind, beam_size]), data.draw(sentences())
    queue = make_queue(*some)
    found, work = run_continuous(kind, beam_size, rule, queue, **SIZES[kind])
    expected, expected_work = run(kind, beam_size, rule, queue, slots=SLOTS, refill=1)
    assert_same(found, expected)
    assert work.rows[0] == expected_work.rows[0]


@pytest.mark.parametrize(
    "case",
    [
        Case("pre", 3, Fixed(2)),
        Case("pre", 3, TokenGeometric((0.65, 0.05))),
        Case("pre", 3, Confidence((0.51, 0.71))),
        Case("per_exit", 3, SequenceMultinomial()),
        Case("tied", 3, TokenMultinomial()),
        Case("tied", 3, Uniform(4, 0)),
    ],
    ids=str,
)
def test_no_store_is_copied_in_the_loop(case: Case):
    """Written inside a branch, states once were copied whole for each tick."""
    model, params = make_model(case.kind)
    how = settings(3, SLOTS, refill=1, cohort=COHORTS[3])
    lowered = search.lower(model, params, case.rule, make_queue(), how)
    program = lowered.compile().as_text() or ""
    before, rest = program.split("\nENTRY ")
    entry, after = rest.split("\n}\n", maxsplit=1)
    loop = before + after  # with its branches, and whatever they call
    states = rf"f32\[{(model.config.decoder_layers + 1) * SLOTS * 3 * MAX_LENGTH},8\]"
    memory = rf"f32\[{SLOTS},2,5,4\]"
    for store in (states, memory):
        assert re.search(store, loop)
        assert not re.search(rf"= {store}\S* copy\(", loop)
    assert not re.search(rf"= {states}\S* copy\(", entry)
    assert re.search(rf"= {memory}\S* copy\(", entry)  # of the empty ones, before the loop
