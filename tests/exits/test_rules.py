# SPDX-License-Identifier: Apache-2.0
"""Each rule, called directly, compared with its definition in plain Python."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.exits.questions import Block, Classified, Need, Plan, Rule, Scope, Sentence, Token
from dat_jax.exits.rules import (
    RULES,
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
from dat_jax.exits.sampling import token_draws
from tests.tiny import random_array

N = 4
NEEDS = {
    Fixed: (Scope.TEXT, set()),
    Uniform: (Scope.TOKEN, set()),
    SequenceMultinomial: (Scope.SENTENCE, {Need.SENTENCE_LOGITS}),
    TokenMultinomial: (Scope.TOKEN, {Need.FIRST_STATE_LOGITS}),
    TokenGeometric: (Scope.TOKEN, {Need.HALTING_LOGIT}),
    Confidence: (Scope.TOKEN, {Need.CLASSIFIER}),
    Margin: (Scope.TOKEN, {Need.CLASSIFIER}),
    Similarity: (Scope.TOKEN, set()),
    Patience: (Scope.TOKEN, {Need.CLASSIFIER}),
    Schedule: (Scope.TOKEN, set()),
}


def initial_plan(*shape: int, carried: int = 0) -> Plan:
    """The plan before any question is asked: exit at depth N."""
    return Plan(jnp.full(shape, N), jnp.zeros((*shape, carried)))


def ask_after_blocks(rule: Rule, logits: Sequence[jax.Array | None], *shape: int) -> list[int]:
    """The depths at which tokens of this shape exit, given the logits after each block below N."""
    plan = initial_plan(*shape)
    for depth, seen in enumerate(logits, start=1):
        states = random_array(depth, *shape, 2)
        new = rule.after_block(Block(jnp.full(shape, depth), states, states, seen), plan)
        plan = new._replace(exit_at=jnp.minimum(plan.exit_at, new.exit_at))
    return plan.exit_at.ravel().tolist()


def ask_after_classifiers(rule: Rule, probabilities: Sequence[Sequence[float]]) -> list[int]:
    """The depths at which tokens exit, given the top token's probability at each depth."""
    plan = initial_plan(len(probabilities[0]))
    for depth, likeliest in enumerate(probabilities, start=1):
        logits = 3 + jnp.log(jnp.asarray([[p, *[(1 - p) / 9] * 9] for p in likeliest]))
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        depths = jnp.full(len(likeliest), depth)
        seen = Classified(depths, logits, normaliser, logits[:, :2], jnp.zeros((len(likeliest), 2)))
        new = rule.after_classifier(seen, plan)
        plan = new._replace(exit_at=jnp.minimum(plan.exit_at, new.exit_at))
    return plan.exit_at.tolist()


@pytest.mark.parametrize("kind", NEEDS)
def test_a_rule_declares_its_needs_and_its_scope(kind: type[Rule]):
    assert (kind.scope, set(kind.needs)) == NEEDS[kind]
    assert set(NEEDS) == set(RULES)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_fixed_exits_at_its_depth(depth: int):
    exit_at = Fixed(depth).before_sentence(Sentence(None), jnp.full(3, N))
    assert exit_at.tolist() == [depth] * 3


def test_uniform_maps_each_quarter_of_the_unit_interval_to_a_depth():
    numbers, positions = jnp.arange(50) * 7, jnp.arange(50) % 9
    token = Token(numbers, positions, jnp.full(50, 20))
    exit_at = Uniform(N, 3).before_token(token, initial_plan(50, 2)).exit_at
    draws = np.asarray(token_draws(3, numbers, positions, 2))
    expected = [[next(n for n in range(1, N + 1) if d < n / N) for d in row] for row in draws]
    assert exit_at.tolist() == expected
    assert {depth for row in expected for depth in row} == {1, 2, 3, 4}


LOGITS = [
    [2.0, 1.0, 0.0, 0.0],
    [-1.0, 0.5, 0.0, 0.0],
    [0.0, 1.0, 3.0, 2.0],
    [0.0, 2.0, 2.0, 1.0],
    [1.0, 1.0, 1.0, 1.0],
    [0.0, 1.0, 0.0, 2.0],
]
LIKELIEST = [1, 2, 3, 2, 1, 4]  # the lower one on a tie


def test_sequence_multinomial_exits_at_the_likeliest_depth():
    rule = SequenceMultinomial()
    exit_at = rule.before_sentence(Sentence(jnp.asarray(LOGITS)), jnp.full(len(LOGITS), N))
    assert exit_at.tolist() == LIKELIEST


def test_token_multinomial_exits_at_the_likeliest_depth_after_block_1():
    logits = jnp.asarray(LOGITS)
    assert ask_after_blocks(TokenMultinomial(), [logits, None, None], len(LOGITS)) == LIKELIEST


def test_geometric_exits_at_the_first_probability_above_tau():
    # Logit 0 has probability 0.5, which is not above 0.5; 1 has 0.73 and 1.2 has 0.77.
    first = jnp.asarray([0.1, 0.0, -9.0, 9.0, -1.0])
    second = jnp.asarray([-9.0, 1.2, 1.0, 9.0, 1.2])
    third = jnp.asarray([9.0, 9.0, -9.0, 9.0, 9.0])
    rule = TokenGeometric((0.5, 0.75, 0.5))
    assert ask_after_blocks(rule, [first, second, third], 5) == [1, 2, 4, 1, 2]


def test_confidence_exits_at_the_first_probability_above_tau():
    first, second = [0.6, 0.45, 0.2, 0.9, 0.2], [0.2, 0.8, 0.7, 0.9, 0.8]
    rule = Confidence((0.5, 0.75, 0.9))
    assert ask_after_classifiers(rule, [first, second, [0.2] * 5]) == [1, 2, 4, 1, 2]


def seen_tokens(depth: int, likeliest: Sequence[int]) -> Classified:
    """What a rule sees at a depth of tokens with these likeliest ones."""
    tokens = jnp.asarray([[token, 9] for token in likeliest])
    logits = jnp.zeros(tokens.shape)
    return Classified(jnp.full(len(likeliest), depth), logits, logits[:, 0], logits, tokens)


@pytest.mark.parametrize(
    ("exits", "expected"),
    [(1, [1, 1, 1, 1]), (2, [2, 3, 3, N]), (3, [3, N, N, N]), (4, [N, N, N, N])],
)
def test_patience_exits_once_enough_exits_in_a_row_agree(exits: int, expected: list[int]):
    """Token 0 is likeliest, too, and no memory of another one."""
    plan = initial_plan(4, carried=Patience.carry_width)
    for depth, likeliest in enumerate([[5, 0, 7, 5], [5, 6, 8, 7], [5, 6, 8, 5]], start=1):
        new = Patience(exits).after_classifier(seen_tokens(depth, likeliest), plan)
        plan = new._replace(exit_at=jnp.minimum(plan.exit_at, new.exit_at))
    assert plan.exit_at.tolist() == expected


def test_margin_is_the_difference_of_the_two_likeliest():
    """Of those that may be generated, which the last logit here is not."""
    logits = jnp.log(jnp.asarray([[0.5, 0.3, 0.2], [0.3, 0.3, 0.4], [0.45, 0.05, 0.5]])) + 2
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    seen = Classified(jnp.ones(3, int), logits, normaliser, logits[:, :2], jnp.zeros((3, 2), int))
    np.testing.assert_allclose(Margin.signal(seen), [0.2, 0.0, 0.4], atol=1e-6)


def test_similarity_is_a_cosine_that_is_never_above_1():
    before = jnp.asarray([[3.0, 4.0], [1.0, 0.0], [1e-3, 1e-3], [0.0, 0.0], [2.0, 1.0]])
    after = jnp.asarray([[6.0, 8.0], [0.0, 5.0], [1.0, 1.0], [1.0, 1.0], [-2.0, -1.0]])
    signal = Similarity.signal(Block(jnp.full(5, 2), before, after, None))
    np.testing.assert_allclose(signal, [1, 0, 1, 0, -1], atol=1e-6)
    many = random_array(3, 1000, 8)
    assert float(Similarity.signal(Block(jnp.full(1000, 2), many, 3 * many, None)).max()) <= 1


def test_similarity_compares_from_depth_2_on():
    states = jnp.ones((3, 2))
    block = Block(jnp.asarray([1, 2, 3]), states, states, None)
    assert Similarity((0.5, 0.5)).after_block(block, initial_plan(3)).exit_at.tolist() == [N, 2, 3]
    assert Similarity((0.5, 1.0)).after_block(block, initial_plan(3)).exit_at.tolist() == [N, 2, N]
    assert Similarity((1.0, 0.5)).after_block(block, initial_plan(3)).exit_at.tolist() == [N, N, 3]


@pytest.mark.parametrize("kind", [Confidence, Margin])
def test_a_threshold_of_0_lets_all_tokens_exit(kind: type[Rule]):
    nothing = jnp.full(2, -jnp.inf)
    seen = Classified(
        jnp.asarray([1]), nothing[None], jnp.zeros(1), nothing[None], jnp.zeros((1, 2))
    )
    assert kind((0.0, 0.5, 0.5)).after_classifier(seen, initial_plan(1)).exit_at.tolist() == [1]
    assert kind((0.1, 0.5, 0.5)).after_classifier(seen, initial_plan(1)).exit_at.tolist() == [N]


@pytest.mark.parametrize(
    ("rule", "limit", "expected"),
    [
        (Schedule(4, 1), 4, [4, 3, 2, 1]),
        (Schedule(4, 1), 7, [4, 4, 3, 3, 2, 2, 1]),  # halves to the deeper block
        (Schedule(4, 1), 2, [4, 1]),
        (Schedule(4, 1), 1, [4]),
        (Schedule(3, 2), 5, [3, 3, 3, 2, 2]),
        (Schedule(2, 2), 3, [2, 2, 2]),
    ],
    ids=str,
)
def test_a_schedule_falls_from_first_to_last(rule: Schedule, limit: int, expected: list[int]):
    positions = jnp.arange(limit)
    token = Token(positions, positions, jnp.full(limit, limit))
    exit_at = rule.before_token(token, initial_plan(limit, 2)).exit_at
    assert exit_at.tolist() == [[depth, depth] for depth in expected]


def test_only_a_schedule_never_deepens():
    assert [kind for kind in RULES if not kind.deepens] == [Schedule]
    assert [rule.copies_states for rule in (Fixed(1), Schedule(2, 1), Uniform(N, 0))] == [
        False,
        False,
        True,
    ]


def test_rows_of_one_call_may_be_at_different_depths():
    rule, depths = TokenGeometric((0.9, 0.1, 0.9)), jnp.asarray([1, 2, 3, 2])
    states = jnp.zeros((4, 2))
    plan = rule.after_block(Block(depths, states, states, jnp.zeros(4)), initial_plan(4))
    assert plan.exit_at.tolist() == [N, 2, N, 2]


@pytest.mark.parametrize("kind", [TokenGeometric, Confidence])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_each_threshold_applies_at_its_own_depth_only(kind, depth: int):
    # With equal thresholds, code that uses the same one at every depth would pass too.
    rule = kind(tuple(0.7 if n == depth else 1.0 for n in range(1, N)))
    if kind is TokenGeometric:
        logits = jnp.log(jnp.asarray([0.5 / 0.5, 0.9 / 0.1]))
        depths = ask_after_blocks(rule, [logits] * 3, 2)
    else:
        depths = ask_after_classifiers(rule, [[0.5, 0.9]] * 3)
    assert depths == [N, depth]


@pytest.mark.parametrize(
    ("rule", "depth"),
    [
        (Fixed(2), 2),
        (Uniform(N, 0), N),
        (TokenMultinomial(), N),
        (Confidence((0.9, 0.8, 0.7)), N),
        (Margin((0.9, 0.8, 0.0)), 3),
        (Similarity((0.9, 0.8)), N),
        (Similarity((0.0, 0.8)), 2),
        (Similarity((0.8, 0.0)), 3),
        (Patience(1), 1),
        (Patience(2), N),
        (Schedule(3, 1), 3),
        (Confidence((0.9, 0.0, 0.7)), 2),
        (TokenGeometric((-0.1, 0.0, 0.7)), 1),
        (TokenGeometric((0.3, 0.1, 0.0)), 3),
    ],
    ids=str,
)
def test_deepest_is_the_highest_depth_a_rule_can_exit_at(rule: Rule, depth: int):
    assert rule.deepest(N) == depth


def test_the_base_rule_changes_no_plan():
    plan, rule = initial_plan(3), Rule()
    states = jnp.zeros((3, 2))
    assert rule.before_sentence(Sentence(None), plan.exit_at) is plan.exit_at
    assert rule.before_token(Token(*[jnp.zeros(3)] * 3), plan) is plan
    assert rule.after_block(Block(plan.exit_at, states, states, None), plan) is plan
    seen = Classified(plan.exit_at, states, states[:, 0], states, states)
    assert rule.after_classifier(seen, plan) is plan


ONE_OF_EACH: list[Rule] = [
    Fixed(1),
    Uniform(N, 0),
    SequenceMultinomial(),
    TokenMultinomial(),
    TokenGeometric((0.5,) * 3),
    Confidence((0.5,) * 3),
    Margin((0.5,) * 3),
    Similarity((0.5,) * 2),
    Patience(2),
    Schedule(4, 1),
]


def test_rules_of_different_kinds_have_different_tree_structures():
    """JAX looks up compiled programs by tree structure. If dataclasses with equal fields compared
    equal, only their hashes would tell them apart, and about one pair in a hundred collided."""
    structures = [jax.tree.structure(rule) for rule in ONE_OF_EACH]
    for index, structure in enumerate(structures):
        assert [n for n, other in enumerate(structures) if other == structure] == [index]


def _fixed(rule: Any) -> jax.Array:
    return rule.before_sentence(Sentence(None), jnp.full(1, N))


def _drawn(rule: Any) -> jax.Array:
    token = Token(*[jnp.arange(9)] * 3)
    return rule.before_token(token, initial_plan(9, 1)).exit_at


def _halting(rule: Any) -> jax.Array:
    states, depths = jnp.zeros((2, 2)), jnp.asarray([1, 2])
    block = Block(depths, states, states, jnp.asarray([0.3, 9.0]))
    return rule.after_block(block, initial_plan(2)).exit_at


def _confident(rule: Any) -> jax.Array:
    logits, depths = jnp.log(jnp.asarray([[0.7, 0.3], [0.9, 0.1]])), jnp.asarray([1, 2])
    seen = Classified(depths, logits, jnp.zeros(2), logits, depths[:, None])
    return rule.after_classifier(seen, initial_plan(2)).exit_at


@pytest.mark.parametrize(
    ("one", "other", "ask"),
    [
        (Fixed(1), Fixed(3), _fixed),
        (Uniform(N, 1), Uniform(N, 2), _drawn),
        (TokenGeometric((0.5, 0.5, 0.5)), TokenGeometric((0.9, 0.1, 0.5)), _halting),
        (Confidence((0.2, 0.95, 0.5)), Confidence((0.9, 0.2, 0.5)), _confident),
    ],
    ids=lambda value: str(value) if isinstance(value, Rule) else "",
)
def test_one_compiled_program_serves_all_rules_of_a_kind(
    one: Rule, other: Rule, ask: Callable[[Rule], jax.Array]
):
    traces = []

    @jax.jit
    def compiled(rule: Any) -> jax.Array:
        traces.append(rule)
        return ask(rule)

    depths = [compiled(rule).tolist() for rule in (one, other)]
    assert depths == [ask(rule).tolist() for rule in (one, other)]
    assert depths[0] != depths[1]  # numbers are arguments of the program, not constants
    assert len(traces) == 1
