# SPDX-License-Identifier: Apache-2.0
"""The lockstep engine against a search without cache, batch or loop on the device."""

import functools
import itertools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.data.vocabulary import EOS, PAD
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
from dat_jax.model.transformer import Transformer
from dat_jax.types import Params
from tests.decoding.plain_policies import (
    Hypothesis,
    PlainDecoder,
    draws_of,
    search_without_cache,
    whole_pass,
)
from tests.tiny import random_params, tiny_model

N = 3
LENGTH_PENALTY = 0.8
MAX_LENGTH = 7
SOURCE = np.asarray(
    [
        [5, 7, 4, 9, EOS],
        [8, 8, EOS, PAD, PAD],
        [EOS, PAD, PAD, PAD, PAD],
        [4, 5, 6, EOS, PAD],
        [10, 9, EOS, PAD, PAD],
        [6, 4, 10, 8, EOS],
    ],
    np.int32,
)
LIMITS = np.asarray([7, 5, 3, 7, 4, 6], np.int32)
NUMBERS = np.asarray([3, 1, 4, 15, 9, 2], np.int32)
ROWS = len(SOURCE)

POST = {"norm": "post", "exit_head": "token_geometric"}
PRE = {
    "norm": "pre",
    "classifiers": "per_exit",
    "exit_head": "token_geometric",
    "halting_weights": "per_depth",
}
TIED = {
    "norm": "pre",
    "embeddings": "tied",
    "exit_head": "token_multinomial",
    "num_layers": 4,  # room for a state to be copied twice, and attended to both times
}
KINDS = {  # the config, and the seed of parameters by which sentences and exits differ
    "post": (POST, 5),
    "pre": (PRE, 4),
    "tied": (TIED, 8),
    "per_exit": ({"classifiers": "per_exit", "exit_head": "sequence_multinomial"}, 18),
    "last": ({"norm": "post", "exits": "last"}, 5),
}
WITH_ALL_EXITS = [kind for kind in KINDS if kind != "last"]


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
def make_model(kind: str) -> tuple[Transformer, Params]:
    """A model whose states differ enough between tokens and depths for its choices to vary."""
    changes, seed = KINDS[kind]
    model = tiny_model(**changes)
    if kind == "last":  # the model "post" without its lower exits
        return model, make_model("post")[1]

    def enliven(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path)
        if name.endswith("['scale']"):
            return 1 + leaf / 2
        return leaf * (0.3 if name.endswith("['bias']") else 1 if "feed_forward" in name else 2)

    return model, jax.tree_util.tree_map_with_path(enliven, random_params(model, seed))


def run(
    kind: str,
    beam_size: int,
    policy: Policy,
    source: np.ndarray = SOURCE,
    limits: np.ndarray = LIMITS,
    numbers: np.ndarray = NUMBERS,
    params: Params | None = None,
) -> tuple[Hypotheses, int]:
    """The engine's hypotheses, and the blocks it ran on rows."""
    model, own_params = make_model(kind)
    hypotheses, rows_run = search(
        model,
        own_params if params is None else params,
        jnp.asarray(source),
        jnp.asarray(limits),
        jnp.asarray(numbers),
        policy=policy,
        beam_size=beam_size,
        length_penalty=LENGTH_PENALTY,
        max_length=MAX_LENGTH,
    )
    return jax.tree.map(np.asarray, hypotheses), int(rows_run)


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


def patterns(kind: str) -> list[tuple[int, ...]]:
    """All exits of three tokens."""
    return list(itertools.product(range(1, depths(kind) + 1), repeat=3))


def depths(kind: str) -> int:
    """N."""
    return make_model(kind)[0].config.num_layers


def numbers_with_exits(
    num_layers: int, wanted: list[tuple[int, ...]], beams: int = 1
) -> np.ndarray:
    """A sentence number for each of `wanted`, by which Uniform(num_layers, 0) draws it.

    What is wanted are the exits of the first tokens, or of the beams of the first.
    """
    draws = draws_of(0, np.arange(3000), 5 if beams == 1 else 1, beams).reshape(3000, -1)
    exits = 1 + (draws * num_layers).astype(int)
    return np.asarray(
        [np.argmax((exits[:, : len(one)] == one).all(axis=1)) for one in wanted], np.int32
    )


def params_without_eos(kind: str) -> Params:
    """The model's parameters, but EOS is never the likeliest token."""
    params = dict(make_model(kind)[1])
    name = "target_embedding" if kind == "tied" else "classifiers"
    table = params[name]["table"].at[..., EOS, :].set(0)
    return params | {name: params[name] | {"table": table}}


@functools.cache
def engine_on_patterns(kind: str) -> Hypotheses:
    """Translations of one sentence with every pattern of exits."""
    rows = len(patterns(kind))
    found, _ = run(
        kind,
        1,
        Uniform(depths(kind), 0),
        np.repeat(SOURCE[:1], rows, axis=0),
        np.full(rows, MAX_LENGTH),
        numbers_with_exits(depths(kind), patterns(kind)),
        params_without_eos(kind),
    )
    return found


@pytest.mark.parametrize("kind", WITH_ALL_EXITS)
def test_every_pattern_of_exits_equals_the_teacher_forced_pass_with_copied_states(kind: str):
    model, params = make_model(kind)[0], params_without_eos(kind)
    found = engine_on_patterns(kind)
    draws = draws_of(0, numbers_with_exits(depths(kind), patterns(kind)), MAX_LENGTH)[:, :, 0]
    np.testing.assert_array_equal(found.exits, 1 + np.floor(draws * depths(kind)))
    assert [tuple(exits) for exits in found.exits[:, :3].tolist()] == patterns(kind)
    assert (found.lengths == MAX_LENGTH).all()
    for row in range(len(found.tokens)):
        tokens, exits = tuple(found.tokens[row].tolist()), tuple(found.exits[row].tolist())
        outputs = whole_pass(model, params, SOURCE[0], tokens[:-1], exits, MAX_LENGTH)
        log_probs = outputs.log_probs[np.asarray(exits) - 1, np.arange(MAX_LENGTH)]
        likeliest = 1 + np.argmax(log_probs[:, PAD + 1 :], axis=-1)
        assert tokens == (*likeliest[:-1].tolist(), EOS)
        log_prob = log_probs[np.arange(MAX_LENGTH), tokens].sum()
        np.testing.assert_allclose(found.log_probs[row], log_prob, rtol=1e-4)
        score = log_prob / MAX_LENGTH**LENGTH_PENALTY
        np.testing.assert_allclose(found.scores[row], score, rtol=1e-4)


@pytest.mark.parametrize("kind", WITH_ALL_EXITS)
def test_a_copy_of_the_first_exits_state_would_be_noticed(kind: str):
    """A peer copied upward what the first exit had seen, and not the state computed last."""
    model, params, full_depth = make_model(kind)[0], params_without_eos(kind), depths(kind)
    own_exits = (2, full_depth, full_depth)
    row = patterns(kind).index(own_exits)
    tokens = tuple(engine_on_patterns(kind).tokens[row, :2].tolist())
    log_probs = [
        whole_pass(model, params, SOURCE[0], tokens, exits, MAX_LENGTH).log_probs[-1, 1:3]
        for exits in (own_exits, (1, *own_exits[1:]))
    ]
    assert (np.abs(log_probs[1] - log_probs[0]).max(axis=-1) > 0.01).all()


@pytest.mark.parametrize(
    ("kind", "beam_size", "policy"),
    [("post", 1, TokenGeometric), ("pre", 3, TokenGeometric), ("pre", 3, Confidence)],
)
@pytest.mark.parametrize(("depth", "thresholds"), [(1, (0, 1)), (2, (1, 0)), (3, (1, 1))])
def test_thresholds_per_depth_take_effect_at_their_depth(
    kind, beam_size, policy, depth, thresholds
):
    """Every exit at 1, at 2 and at N. A peer's thresholds were the same at every step."""
    found, rows_run = run(kind, beam_size, policy(tuple(map(float, thresholds))))
    expected, rows_expected = engine(Case(kind, beam_size, Fixed(depth)))
    assert_same(found, expected)
    assert rows_run == rows_expected
    np.testing.assert_array_equal(found.exits, np.where(found.tokens == PAD, 0, depth))


def test_exits_at_full_depth_are_those_of_a_model_without_lower_exits():
    expected, rows_expected = engine(Case("last", 1, Fixed(N)))
    for policy in (Fixed(N), TokenGeometric((1.0, 1.0))):
        found, rows_run = run("post", 1, policy)
        assert_same(found, expected)
        assert rows_run == rows_expected


def test_finished_rows_and_empty_ones_do_not_hold_the_batch():
    """A peer's did: one row that was done kept all others at full depth."""
    rows, steps = len(patterns("post")), 5
    shallow, deep = numbers_with_exits(N, [(1,) * steps, (N,) * steps])
    source, limits = np.full((rows, SOURCE.shape[1]), PAD), np.ones(rows, np.int32)
    source[:2], limits[:2] = SOURCE[0], [steps, 2]
    numbers = np.full(rows, deep)
    numbers[0] = shallow
    params = params_without_eos("post")
    found, rows_run = run("post", 1, Uniform(N, 0), source, limits, numbers, params)
    assert found.lengths.tolist() == limits.tolist()
    assert rows_run == (N + N + 1 + 1 + 1) * rows


def test_beams_that_hold_no_hypothesis_yet_do_not_vote():
    numbers = np.repeat(numbers_with_exits(4, [(1, 4, 4)], beams=3), ROWS)
    found, rows_run = run("tied", 3, Uniform(4, 0), limits=np.ones_like(LIMITS), numbers=numbers)
    assert (found.exits[:, 0] == 1).all()
    assert rows_run == ROWS * 3


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


def test_chance_follows_from_a_sentences_number():
    case = Case("tied", 3, Uniform(4, 0))
    found, _ = run(*case, numbers=NUMBERS[::-1])
    assert (found.exits != engine(case)[0].exits).any(axis=1).all()


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
    assert "f32[6,21,2,4]" in loop
    copy_of_a_cache = r"= f32\[6,(21|7,3),2,4\]\S* copy\("
    assert re.search(copy_of_a_cache, entry)  # of the empty ones, before the loop
    assert not re.search(copy_of_a_cache, loop)
