# SPDX-License-Identifier: Apache-2.0
"""The lockstep engine against a search without cache, batch or loop on the device."""

import itertools
import re

import jax
import numpy as np
import pytest

from dat_jax.data.vocabulary import EOS, PAD, UNK
from dat_jax.decoding.lockstep import search
from dat_jax.exits.questions import Rule, Scope
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
    ROWS,
    SOURCE,
    layers_run,
    make_model,
    make_queue,
    run,
    settings,
)
from tests.decoding.plain_rules import whole_pass


@cases
def test_equals_the_search_without_cache(case: Case):
    assert_as_without_cache(in_lockstep(case)[0], case)


@one_of_a_kind
def test_caches_of_states_change_nothing(case: Case):
    found, work = run(*case, slots=SLOTS, refill=1, attended="states")
    assert_same(found, in_lockstep(case)[0])
    for counted, expected in zip(work, in_lockstep(case)[1], strict=True):
        np.testing.assert_array_equal(counted, expected)


@pytest.mark.parametrize(
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
def test_a_block_runs_if_a_live_hypothesis_needs_it(case: Case):
    """And then on all rows: so many that a finished one that asked for more would show."""
    found, work = run(*case)  # all from the beginning, so that their steps are the same ones
    steps = itertools.zip_longest(*(twin.deepest for twin in plain(case)), fillvalue=0)
    assert layers_run(work) == sum(map(max, steps)) * ROWS * case.beam_size
    assert_same(found, in_lockstep(case)[0])


def test_the_cases_are_not_all_alike():
    """Else the tests above say little: exits are mixed, and each case finds something else."""
    everything = set()
    for case in CASES:
        found, _ = in_lockstep(case)
        everything.add(str((found.tokens.tolist(), found.exits.tolist())))
        depths = [set(exits[exits > 0].tolist()) for exits in found.exits]
        if not case.rule.scope is not Scope.TOKEN:
            assert sum(len(depths_of_one) > 1 for depths_of_one in depths) >= 2, case
        if case.rule == SequenceMultinomial():
            assert set.union(*depths) == {1, 2, 3}
    same = 1  # a model with its last exit alone, and the same model exiting there
    assert len(everything) == len(CASES) - same


@pytest.mark.parametrize("case", [case for case in CASES if "tempted" in case.kind], ids=str)
def test_the_tempted_find_likeliest_what_may_not_be_written(case: Case):
    """The likeliest tokens: EOS as a first one, and UNK."""
    (model, params), found = make_model(case.kind), in_lockstep(case)[0]
    likeliest = []
    for source, tokens, exits, length in zip(SOURCE, *found[:3], strict=True):
        prefix, depths = tuple(tokens[: length - 1]), tuple(exits[:length])
        log_probs = whole_pass(model, params, source, prefix, depths, MAX_LENGTH).log_probs
        at_exits = log_probs[exits[:length] - 1, np.arange(length)]
        likeliest.append(np.argmax(at_exits, axis=-1).tolist())
    assert any(tokens[0] == EOS and len(tokens) > 1 for tokens in likeliest)
    assert any(UNK in tokens for tokens in likeliest)


@pytest.mark.parametrize(
    ("kind", "beam_size", "rule"),
    [("post", 1, TokenGeometric), ("pre", 3, TokenGeometric), ("pre", 3, Confidence)],
)
@pytest.mark.parametrize(("depth", "thresholds"), [(1, (0, 1)), (2, (1, 0)), (3, (1, 1))])
def test_thresholds_per_depth_take_effect_at_their_depth(kind, beam_size, rule, depth, thresholds):
    """Every exit at 1, at 2, at N = 3. A peer's thresholds were the same at every step."""
    found, work = in_lockstep(Case(kind, beam_size, rule(tuple(map(float, thresholds)))))
    expected, expected_work = in_lockstep(Case(kind, beam_size, Fixed(depth)))
    assert_same(found, expected)
    assert layers_run(work) == layers_run(expected_work)
    np.testing.assert_array_equal(found.exits, np.where(found.tokens == PAD, 0, depth))


def test_exits_at_full_depth_are_those_of_a_model_without_lower_exits():
    expected, expected_work = in_lockstep(Case("last", 1, Fixed(3)))
    for rule in (Fixed(3), TokenGeometric((1.0, 1.0))):
        found, work = in_lockstep(Case("post", 1, rule))
        assert_same(found, expected)
        assert layers_run(work) == layers_run(expected_work)


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in CASES
        if isinstance(case.rule, (TokenGeometric, Confidence, Uniform, SequenceMultinomial))
    ],
    ids=str,
)
def test_a_sentence_does_not_see_its_neighbours(case: Case):
    together, _ = in_lockstep(case)
    for row in range(ROWS):
        place = ROWS - 1 - row
        source, limits, numbers = np.full_like(SOURCE, PAD), np.ones_like(LIMITS), NUMBERS * 0
        source[place], limits[place], numbers[place] = SOURCE[row], LIMITS[row], NUMBERS[row]
        alone, _ = run(*case, make_queue(source, limits, numbers), slots=SLOTS, refill=1)
        assert_same(
            jax.tree.map(lambda x, place=place: x[place], alone),
            jax.tree.map(lambda x, row=row: x[row], together),
        )


@pytest.mark.parametrize(
    "case",
    [Case("post", 1, TokenGeometric((0.98, 0.97))), Case("tied", 3, Uniform(4, 0))],
    ids=str,
)
def test_sentences_that_come_in_two_by_two_are_translated_alike(case: Case):
    """In two slots they take more steps than the rings of the cache have room for."""
    found, work = run(*case, slots=2, refill=2)
    expected, expected_work = in_lockstep(case)
    assert_same(found, expected)
    np.testing.assert_array_equal(work.rows, expected_work.rows)
    assert work.ticks[0] > MAX_LENGTH


@pytest.mark.parametrize("count", range(ROWS + 1))
def test_a_queue_may_have_room_for_more_than_there_are(count: int):
    case = Case("pre", 3, TokenGeometric((0.65, 0.05)))
    queue = make_queue(SOURCE[:count], LIMITS[:count], NUMBERS[:count])
    found, _ = run(*case, queue, slots=SLOTS, refill=1)
    assert_same(found, jax.tree.map(lambda x: x[:count], in_lockstep(case)[0]))


def test_padding_of_the_source_changes_nothing():
    case = Case("per_exit", 1, SequenceMultinomial())
    wide = np.pad(SOURCE, ((0, 0), (0, 3)), constant_values=PAD)
    padded, _ = run(*case, make_queue(wide, LIMITS, NUMBERS), slots=SLOTS, refill=1)
    assert_same(padded, in_lockstep(case)[0])


@pytest.mark.parametrize(
    "rule", [Fixed(2), TokenGeometric((0.65, 0.05)), Confidence((0.51, 0.71))], ids=str
)
def test_no_cache_is_copied_in_the_loop(rule: Rule):
    """A reshape between a write and attention once made 4 copies of each array of a cache.

    What attention itself transposes for its products has another shape.
    """
    model, params = make_model("pre")
    how = settings(3, SLOTS, refill=1)
    lowered = search.lower(model, params, rule, make_queue(), how)
    program = lowered.compile().as_text() or ""
    before, rest = program.split("\nENTRY ")
    entry, after = rest.split("\n}\n", maxsplit=1)
    loop = before + after  # with its branches, and whatever they call
    assert f"f32[{SLOTS},2,21,4]" in loop
    copy_of_a_cache = rf"= f32\[{SLOTS},2,(21|7,3),4\]\S* copy\("
    assert re.search(copy_of_a_cache, entry)  # of the empty ones, before the loop
    assert not re.search(copy_of_a_cache, loop)
