# SPDX-License-Identifier: Apache-2.0
"""The likeliest tokens and the continuations they give, compared with a plain sort."""

import re
from functools import partial

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from dat_jax.decoding.top_tokens import (
    Continuations,
    continuations,
    group_size,
    in_groups,
    top_tokens,
)
from tests.decoding.stepwise import grouped

PAD, UNK, BOS, EOS = range(4)
LIMIT = 3
FIRST, NEXT, LAST = range(LIMIT)  # positions


@partial(jax.jit, static_argnames="count")
def found(logits: jax.Array, offset: jax.Array, position: jax.Array, count: int) -> Continuations:
    """The best `count` continuations of hypotheses at these positions, whose log-probabilities are
    the logits plus `offset`."""
    top = top_tokens(grouped(logits), min(count, logits.shape[-1]), EOS)
    top, nothing = top._replace(normaliser=-offset), jnp.zeros_like(offset)
    return continuations(top, nothing, position, jnp.full_like(position, LIMIT), EOS)


def expected(
    logits: np.ndarray, offset: np.float32, position: int, count: int
) -> tuple[list[float], list[int]]:
    """The same for one hypothesis: a stable sort of the allowed tokens."""
    totals = offset + logits
    totals[:EOS] = -np.inf
    if position == LAST:
        totals[EOS + 1 :] = -np.inf
    order = np.argsort(-totals, kind="stable")[:count]
    if position == FIRST:
        totals[EOS] = -np.inf  # impossible, but it keeps its rank
    return totals[order].tolist(), order.tolist()


def assert_best(logits, offset, position, count: int) -> None:
    """Asserts that each hypothesis of [*B] has the continuations of a plain sort."""
    arrays = map(jnp.asarray, (logits, offset, position))
    best = jax.tree.map(np.asarray, found(*arrays, count))
    assert best.tokens.shape == (*offset.shape, min(count, logits.shape[-1]))
    for index in np.ndindex(offset.shape):
        totals, tokens = expected(logits[index].copy(), offset[index], position[index], count)
        assert best.log_probs[index].tolist() == totals
        possible = np.isfinite(totals)
        assert best.tokens[index][possible].tolist() == np.asarray(tokens)[possible].tolist()


@pytest.mark.parametrize(
    ("tokens", "size"),
    [(10_000, 80), (44_000, 88), (4_096, 128), (8_000, 80), (8, 128), (500, 128), (10_001, 128)],
)
def test_groups_divide_the_vocabulary_evenly_if_possible(tokens: int, size: int):
    assert group_size(tokens) == size
    by_group = np.asarray(in_groups(jnp.arange(2 * tokens).reshape(-1, 2), -1))
    assert by_group.shape == (-(-tokens // size), size, 2)
    flat = by_group.reshape(-1, 2)
    assert flat[:tokens].ravel().tolist() == list(range(2 * tokens))
    assert (flat[tokens:] == -1).all()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("size", [5, 11, 40, 127, 128, 129, 300, 1024, 4_000, 4_001])
@pytest.mark.parametrize("count", [2, 10])
def test_top_tokens_equal_a_stable_sort(size: int, count: int, ties: bool):
    """The sizes: less than a group, exactly one group, many groups, and a partial last group."""
    generator = np.random.default_rng(size)
    values = generator.normal(size=(4, 3, size))
    logits = (np.round(values) + 0.0 if ties else values).astype(np.float32)  # no -0.0
    offset = generator.integers(-4, 1, (4, 3)).astype(np.float32)
    position = generator.permuted(np.arange(4 * 3) % LIMIT).reshape(4, 3)
    assert_best(logits, offset, position, count)


def test_log_probabilities_are_normalised_over_all_tokens():
    logits = np.random.default_rng(1).normal(size=(3, 300)).astype(np.float32)
    logits[:, :EOS] += 2  # they count, though they are never generated
    so_far, positions = jnp.asarray([0.0, -2.5, -1.0]), jnp.asarray([NEXT, NEXT, LAST])
    top = top_tokens(grouped(jnp.asarray(logits)), 4, EOS)
    best = continuations(top, so_far, positions, jnp.full(3, LIMIT), EOS)
    log_probs = np.asarray(so_far)[:, None] + np.asarray(jax.nn.log_softmax(logits))
    chosen = np.take_along_axis(log_probs, np.asarray(best.tokens), axis=1)
    np.testing.assert_allclose(best.log_probs[:2], chosen[:2], rtol=1e-5)
    np.testing.assert_allclose(best.log_probs[2, 0], log_probs[2, EOS], rtol=1e-5)


def test_ties_across_groups_keep_token_order():
    logits = np.full((1, 1000), -5, np.float32)
    for token in (900, 130, 500, 129, 20):
        logits[0, token] = -1
    best = found(jnp.asarray(logits), jnp.zeros(1), jnp.asarray([NEXT]), 7)
    assert best.tokens[0].tolist() == [20, 129, 130, 500, 900, EOS, EOS + 1]


@pytest.mark.parametrize("never", [PAD, UNK, BOS])
def test_special_tokens_do_not_displace_others(never: int):
    logits = np.random.default_rng(0).normal(size=(8, 1024)).astype(np.float32)
    logits[:, never] = 100
    assert_best(logits, np.zeros(8, np.float32), np.full(8, NEXT), 2)


def test_impossible_continuations_score_minus_infinity():
    logits = np.full((2, 200), -np.inf, np.float32)
    logits[0, 150] = logits[0, PAD] = -1
    logits[1, EOS] = -2
    best = found(jnp.asarray(logits), jnp.zeros(2), jnp.asarray([NEXT, LAST]), 4)
    assert best.tokens[:, 0].tolist() == [150, EOS]
    assert best.log_probs[:, 0].tolist() == [-1, -2]
    assert (best.log_probs[:, 1:] == -jnp.inf).all()
    dead = found(jnp.zeros((1, 200)), jnp.asarray([-jnp.inf]), jnp.asarray([NEXT]), 4)
    assert (dead.log_probs == -jnp.inf).all()


@given(data=st.data())
def test_top_tokens_equal_a_stable_sort_for_random_values(data: st.DataObject):
    shape = (2, 260)
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    levels = data.draw(st.integers(1, 300))
    logits = -generator.integers(0, levels, shape).astype(np.float32) / 4
    logits[generator.random(shape) < data.draw(st.sampled_from([0, 0.5, 0.99]))] = -np.inf
    offset = -generator.integers(0, 9, 2).astype(np.float32)
    assert_best(logits, offset, generator.integers(0, LIMIT, 2), 6)


def test_no_compiled_sort_or_top_k_spans_the_vocabulary():
    """A slice fused into the top-k once turned 17 ms into 1.7 s (128 x 5 x 10,000, CPU)."""
    size = 10_000
    arrays = (jnp.zeros((2, 5, size)), jnp.zeros((2, 5)), jnp.ones((2, 5), jnp.int32))
    program = found.lower(*arrays, 10).compile().as_text() or ""
    assert f"[2,5,{size}]" in program or f"[10,{size}]" in program
    sorting = r"(?:sort|custom-call)\(([^)]*)\)"
    operands = [
        operand
        for line in program.splitlines()
        if " sort(" in line or "TopK" in line
        for names in re.findall(sorting, line)
        for operand in names.split(", ")
    ]
    widths = [
        int(width)
        for operand in operands
        for width in re.findall(rf"{operand} = \w+\[(?:\d+,)*(\d+)\]", program)
    ]
    assert len(widths) >= len(operands) > 0
    assert max(widths) < size / 4
