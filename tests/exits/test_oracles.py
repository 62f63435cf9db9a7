# SPDX-License-Identifier: Apache-2.0
"""Oracles compared with slow loops over sentences, tokens and depths, and at their limits."""

import itertools
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.exits.oracles import agreement, sequence_oracle, token_oracle
from tests.tiny import ragged_mask, random_array

N, B, T = 4, 3, 7
LENGTHS = (7, 4, 1)
MASK = ragged_mask(LENGTHS, T)
LIKELIEST = np.random.default_rng(11).integers(0, 3, (N, B, T))  # few, so that exits agree
SCORES = {
    "agreement": agreement(jnp.asarray(LIKELIEST)),
    "likelihood": -jnp.abs(2 * random_array(0, N, B, T)),
    "correctness": (random_array(4, N, B, T) > 0.5).astype(jnp.float32),
}

kinds = pytest.mark.parametrize("kind", SCORES)
penalties = pytest.mark.parametrize("exit_penalty", [0.0, 0.1, 0.45])
smoothings = pytest.mark.parametrize("smoothing", [0.0, 5.0, 20.0])
reductions = pytest.mark.parametrize("reduction", ["mean", "sum"])


def best_depth(gains: Iterable[float], exit_penalty: float) -> int:
    """The best depth given the gains of exits 1 to N; the lowest one on a tie."""
    objective = [gain - exit_penalty * depth for depth, gain in enumerate(gains, start=1)]
    return 1 + objective.index(max(objective))


def slow_token_oracle(scores: jax.Array, exit_penalty: float, smoothing: float) -> np.ndarray:
    """Equations 14 to 17, one token at a time; 0 on padding."""
    scores = np.asarray(scores, np.float64)
    depths = np.zeros((B, T), int)
    for b, length in enumerate(LENGTHS):
        for t in range(length):
            gains = [0.0] * N
            for n, u in itertools.product(range(N), range(length)):
                near = math.exp(-(abs(t - u) ** 2) / smoothing) if smoothing else float(t == u)
                gains[n] += near * scores[n, b, u]
            depths[b, t] = best_depth(gains, exit_penalty)
    return depths


def slow_sequence_oracle(scores: jax.Array, exit_penalty: float, reduction: str) -> list[int]:
    """Equations 9 and 10, one sentence at a time."""
    scores = np.asarray(scores, np.float64)
    depths = []
    for b, length in enumerate(LENGTHS):
        gains = [sum(scores[n, b, t] for t in range(length)) for n in range(N)]
        if reduction == "mean":
            gains = [gain / length for gain in gains]
        depths.append(best_depth(gains, exit_penalty))
    return depths


def zero_padding(depths: jax.Array) -> np.ndarray:
    """The depths [B, T] with 0 on padding, where the oracle promises nothing."""
    return np.where(MASK, depths, 0)


@smoothings
@penalties
@kinds
def test_token_oracle_equals_a_loop_over_tokens(kind, exit_penalty, smoothing):
    scores = SCORES[kind]
    actual = token_oracle(scores, MASK, exit_penalty=exit_penalty, smoothing=smoothing)
    expected = slow_token_oracle(scores, exit_penalty, smoothing)
    np.testing.assert_array_equal(zero_padding(actual), expected)


@reductions
@penalties
@kinds
def test_sequence_oracle_equals_a_loop_over_sentences(kind, exit_penalty, reduction):
    scores = SCORES[kind]
    actual = sequence_oracle(scores, MASK, exit_penalty=exit_penalty, reduction=reduction)
    expected = slow_sequence_oracle(scores, exit_penalty, reduction)
    np.testing.assert_array_equal(actual, expected)


def test_the_scores_of_this_file_give_varied_oracles():
    for scores in SCORES.values():
        assert {1, 2, 3, 4} <= set(slow_token_oracle(scores, 0.1, 0.0).ravel())
    assert len(set(slow_sequence_oracle(SCORES["likelihood"], 0.1, "mean"))) > 1


@kinds
def test_a_row_does_not_depend_on_its_batch(kind):
    # An oracle that treats the batch as one long sentence is right only for batches of one.
    scores = SCORES[kind]
    tokens = token_oracle(scores, MASK, exit_penalty=0.1, smoothing=2.0)
    sentences = sequence_oracle(scores, MASK, exit_penalty=0.1, reduction="sum")
    assert len(set(map(str, np.asarray(tokens)))) == B
    for b in range(B):
        row, mask = scores[:, b : b + 1], MASK[b : b + 1]
        alone = token_oracle(row, mask, exit_penalty=0.1, smoothing=2.0)
        np.testing.assert_array_equal(alone[0], tokens[b])
        alone = sequence_oracle(row, mask, exit_penalty=0.1, reduction="sum")
        np.testing.assert_array_equal(alone[0], sentences[b])


@pytest.mark.parametrize("garbage", [1e6, -1e6, math.nan])
@smoothings
def test_padding_does_not_affect_real_tokens(garbage, smoothing):
    scores = SCORES["likelihood"]
    mask = jnp.broadcast_to(MASK, scores.shape)
    # A different multiple at each depth, so that garbage would change which depth wins.
    spoilt = jnp.where(mask, scores, garbage * jnp.arange(1, N + 1).reshape(N, 1, 1))
    clean, dirty = (
        token_oracle(x, MASK, exit_penalty=0.1, smoothing=smoothing) for x in (scores, spoilt)
    )
    np.testing.assert_array_equal(zero_padding(dirty), zero_padding(clean))
    for reduction in ("mean", "sum"):
        clean, dirty = (
            sequence_oracle(x, MASK, exit_penalty=0.1, reduction=reduction)
            for x in (scores, spoilt)
        )
        np.testing.assert_array_equal(dirty, clean)


@smoothings
def test_token_oracle_takes_the_lowest_depth_on_ties(smoothing):
    one_exit = random_array(3, 1, B, T)
    same = jnp.concatenate([one_exit - 1, one_exit, one_exit, one_exit])
    depths = token_oracle(same, MASK, exit_penalty=0.0, smoothing=smoothing)
    np.testing.assert_array_equal(zero_padding(depths), np.where(MASK, 2, 0))


@reductions
def test_sequence_oracle_takes_the_lowest_depth_on_ties(reduction):
    one_exit = random_array(3, 1, B, T)
    same = jnp.concatenate([one_exit - 1, one_exit, one_exit, one_exit])
    depths = sequence_oracle(same, MASK, exit_penalty=0.0, reduction=reduction)
    np.testing.assert_array_equal(depths, 2)


@kinds
def test_a_huge_penalty_gives_depth_one(kind):
    for smoothing in (0.0, 2.0):
        depths = token_oracle(SCORES[kind], MASK, exit_penalty=1e3, smoothing=smoothing)
        np.testing.assert_array_equal(zero_padding(depths), MASK)
    for reduction in ("mean", "sum"):
        depths = sequence_oracle(SCORES[kind], MASK, exit_penalty=1e3, reduction=reduction)
        np.testing.assert_array_equal(depths, 1)


@kinds
def test_a_tiny_sigma_equals_no_smoothing(kind):
    tiny, none = (
        token_oracle(SCORES[kind], MASK, exit_penalty=0.1, smoothing=s) for s in (1e-6, 0.0)
    )
    np.testing.assert_array_equal(zero_padding(tiny), zero_padding(none))


@kinds
def test_a_huge_sigma_gives_the_sequence_oracle(kind):
    tokens = token_oracle(SCORES[kind], MASK, exit_penalty=0.1, smoothing=1e9)
    sentences = sequence_oracle(SCORES[kind], MASK, exit_penalty=0.1, reduction="sum")
    np.testing.assert_array_equal(zero_padding(tokens), np.asarray(sentences)[:, None] * MASK)


@pytest.mark.parametrize("exit_penalty", [0.01, 0.1, 0.33])
def test_a_small_penalty_gives_the_lowest_correct_depth(exit_penalty):
    assert exit_penalty < 1 / (N - 1)
    patterns = list(itertools.product([0.0, 1.0], repeat=N))
    scores = jnp.asarray(patterns, jnp.float32).T.reshape(N, 2, 8)
    depths = token_oracle(scores, jnp.ones((2, 8), bool), exit_penalty=exit_penalty, smoothing=0.0)
    expected = [1 + pattern.index(1.0) if any(pattern) else 1 for pattern in patterns]
    np.testing.assert_array_equal(depths.ravel(), expected)


@pytest.mark.parametrize("exit_penalty", [0.0, 0.1, 0.33])
def test_a_small_penalty_finds_the_first_depth_that_predicts_what_the_last_does(exit_penalty):
    assert exit_penalty < 1 / (N - 1)
    depths = token_oracle(SCORES["agreement"], MASK, exit_penalty=exit_penalty, smoothing=0.0)
    for b, length in enumerate(LENGTHS):
        for t in range(length):
            column = LIKELIEST[:, b, t].tolist()
            assert depths[b, t] == 1 + column.index(column[-1])


@pytest.mark.parametrize("exit_penalty", [0.4, 0.6, 1.2])
def test_a_larger_penalty_gives_up_agreement_that_comes_too_late(exit_penalty):
    small, large = (
        np.asarray(token_oracle(SCORES["agreement"], MASK, exit_penalty=p, smoothing=0.0))
        for p in (0.1, exit_penalty)
    )
    kept = small < 1 + 1 / exit_penalty
    assert not kept[MASK].all()
    np.testing.assert_array_equal(large, np.where(kept, small, 1))


@pytest.mark.parametrize("exit_penalty", [0.0, 0.4, 1.0])
def test_a_sentence_s_depth_has_the_smallest_sum_of_disagreements_and_penalty(exit_penalty):
    depths = sequence_oracle(SCORES["agreement"], MASK, exit_penalty=exit_penalty, reduction="sum")
    for b, length in enumerate(LENGTHS):
        costs = [
            sum(row[b, t] != LIKELIEST[-1, b, t] for t in range(length)) + exit_penalty * depth
            for depth, row in enumerate(LIKELIEST, start=1)
        ]
        assert depths[b] == 1 + costs.index(min(costs))


@reductions
def test_a_row_of_padding_gets_depth_one_without_nans(reduction):
    scores, mask = SCORES["likelihood"], ragged_mask((7, 0, 1), T)
    with jax.debug_nans(True):
        depths = sequence_oracle(scores, mask, exit_penalty=0.1, reduction=reduction)
    assert depths[1] == 1


def test_smoothing_multiplies_at_full_precision():
    """By default a TPU rounds scores and kernel to bfloat16, and a GPU may use TF32."""
    smooth = jax.jit(lambda scores: token_oracle(scores, MASK, exit_penalty=0.1, smoothing=5.0))
    (product,) = (
        x
        for x in str(smooth.lower(SCORES["likelihood"]).as_text()).splitlines()
        if "dot_general" in x
    )
    assert "precision = [HIGHEST, HIGHEST]" in product
