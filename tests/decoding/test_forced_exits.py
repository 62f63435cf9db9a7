# SPDX-License-Identifier: Apache-2.0
"""Decoding with chosen exits equals a teacher-forced pass with copied states."""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.data.vocabulary import EOS, PAD
from dat_jax.decoding.beam import Hypotheses
from dat_jax.exits.rules import Uniform
from dat_jax.types import Params
from tests.decoding.lively import (
    LENGTH_PENALTY,
    LIMITS,
    MAX_LENGTH,
    NUMBERS,
    ROWS,
    SOURCE,
    layers_run,
    make_model,
    make_queue,
    run,
)
from tests.decoding.plain_rules import draws_of, whole_pass

with_all_exits = pytest.mark.parametrize("kind", ["post", "pre", "tied", "per_exit"])


def patterns(kind: str) -> list[tuple[int, ...]]:
    """All combinations of exits for three tokens."""
    return list(itertools.product(range(1, depth_of(kind) + 1), repeat=3))


def depth_of(kind: str) -> int:
    """The model's N."""
    return make_model(kind)[0].config.decoder_layers


def numbers_with_exits(
    num_layers: int, wanted: list[tuple[int, ...]], beams: int = 1
) -> np.ndarray:
    """For each entry of `wanted`, a sentence number for which Uniform(num_layers, 0) draws it.

    An entry lists the exits of the first tokens, or those of the first token's beams.
    """
    draws = draws_of(0, np.arange(3000), 5 if beams == 1 else 1, beams).reshape(3000, -1)
    exits = 1 + (draws * num_layers).astype(int)
    return np.asarray(
        [np.argmax((exits[:, : len(one)] == one).all(axis=1)) for one in wanted], np.int32
    )


def params_without_eos(kind: str) -> Params:
    """The model's parameters, changed so that EOS is never the likeliest token."""
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
        Uniform(depth_of(kind), 0),
        make_queue(
            np.repeat(SOURCE[:1], rows, axis=0),
            np.full(rows, MAX_LENGTH),
            numbers_with_exits(depth_of(kind), patterns(kind)),
        ),
        params=params_without_eos(kind),
    )
    return found


@with_all_exits
def test_every_pattern_of_exits_equals_the_teacher_forced_pass(kind: str):
    model, params = make_model(kind)[0], params_without_eos(kind)
    found = engine_on_patterns(kind)
    draws = draws_of(0, numbers_with_exits(depth_of(kind), patterns(kind)), MAX_LENGTH)[:, :, 0]
    np.testing.assert_array_equal(found.exits, 1 + np.floor(draws * depth_of(kind)))
    assert [tuple(exits) for exits in found.exits[:, :3].tolist()] == patterns(kind)
    assert (found.lengths == MAX_LENGTH).all()
    for row in range(len(found.tokens)):
        tokens, exits = tuple(found.tokens[row].tolist()), tuple(found.exits[row].tolist())
        outputs = whole_pass(model, params, SOURCE[0], tokens[:-1], exits, MAX_LENGTH)
        log_probs = outputs.log_probs[np.asarray(exits) - 1, np.arange(MAX_LENGTH)]
        likeliest = EOS + np.argmax(log_probs[:, EOS:], axis=-1)
        assert tokens == (*likeliest[:-1].tolist(), EOS)
        log_prob = log_probs[np.arange(MAX_LENGTH), tokens].sum()
        np.testing.assert_allclose(found.log_probs[row], log_prob, rtol=1e-4)
        score = log_prob / MAX_LENGTH**LENGTH_PENALTY
        np.testing.assert_allclose(found.scores[row], score, rtol=1e-4)


@with_all_exits
def test_copying_the_wrong_state_would_be_noticed(kind: str):
    """Another system copied the state of the first exit upward, not the last computed state."""
    model, params, full_depth = make_model(kind)[0], params_without_eos(kind), depth_of(kind)
    own_exits = (2, full_depth, full_depth)
    row = patterns(kind).index(own_exits)
    tokens = tuple(engine_on_patterns(kind).tokens[row, :2].tolist())
    log_probs = [
        whole_pass(model, params, SOURCE[0], tokens, exits, MAX_LENGTH).log_probs[-1, 1:3]
        for exits in (own_exits, (1, *own_exits[1:]))
    ]
    assert (np.abs(log_probs[1] - log_probs[0]).max(axis=-1) > 0.01).all()


def params_that_end_at_full_depth() -> Params:
    """Those of "per_exit", changed so that EOS is the likeliest token at exit N only."""
    params = params_without_eos("per_exit")
    table, blocks = params["classifiers"]["table"], dict(params["decoder"]["blocks"])
    norm = blocks["ff_residual"]["norm"]
    # All states after block N are close to this one, which only EOS matches.
    blocks["ff_residual"] = {"norm": norm | {"bias": norm["bias"].at[-1].set(30.0)}}
    last_table = jnp.zeros_like(table[-1]).at[EOS].set(1.0)
    return params | {
        "classifiers": {"table": table.at[-1].set(last_table)},
        "decoder": {"blocks": blocks},
    }


def test_finished_and_empty_rows_run_no_blocks():
    """In another system one finished row kept all others at full depth."""
    rows, limit = len(patterns("post")), 5
    shallow, ends_early = (1, 1, 1, 1, 1), (3, 1, 3, 3, 3)
    source, limits = np.full((rows, SOURCE.shape[1]), PAD), np.ones(rows, np.int32)
    source[:2], limits[:2] = SOURCE[1::-1], limit
    numbers = np.repeat(numbers_with_exits(3, [(3,) * limit]), rows)
    numbers[:2] = numbers_with_exits(3, [shallow, ends_early])
    found, work = run("post", 1, Uniform(3, 0), make_queue(source, limits, numbers))
    assert found.lengths.tolist() == [limit, 3] + [1] * (rows - 2)
    assert layers_run(work) == (3 + 1 + 3 + 1 + 1) * rows


def test_beams_without_a_hypothesis_run_no_blocks():
    numbers = np.repeat(numbers_with_exits(4, [(1, 4, 4)], beams=3), ROWS)
    found, work = run("tied", 3, Uniform(4, 0), make_queue(SOURCE, np.ones_like(LIMITS), numbers))
    assert (found.exits[:, 0] == 1).all()
    assert layers_run(work) == ROWS * 3


def test_other_numbers_or_seeds_draw_other_exits():
    limits = np.full_like(LIMITS, MAX_LENGTH)
    exits = [
        run("tied", 3, Uniform(4, seed), make_queue(SOURCE, limits, numbers))[0].exits
        for seed, numbers in [(0, NUMBERS), (0, NUMBERS[::-1]), (1, NUMBERS)]
    ]
    for one, other in itertools.combinations(exits, 2):
        assert (one != other).any(axis=1).mean() > 0.5
