# SPDX-License-Identifier: Apache-2.0
"""Shapes fit all pairs, respect the token budget, and waste little padding."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from dat_jax.data.shapes import Shape, choose_shapes
from dat_jax.errors import UserError


def lengths(seed: int, pairs: int, longest: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    source = random.geometric(0.2, pairs).clip(1, longest).astype(np.int32)
    target = (source + random.integers(-2, 3, pairs)).clip(1, longest).astype(np.int32)
    return source, target


def padded_tokens(
    source: np.ndarray, target: np.ndarray, boxes: Sequence[tuple[int, ...]]
) -> float:
    costs = [np.where((source <= box[0]) & (target <= box[1]), sum(box), np.inf) for box in boxes]
    return float(np.min(costs, axis=0).sum())


@pytest.mark.parametrize("num_shapes", [1, 2, 3, 8])
def test_shapes_fit_all_pairs_within_the_budget(num_shapes: int) -> None:
    source, target = lengths(0, 2_000, longest=40)
    shapes = choose_shapes(source, target, num_shapes, batch_tokens=500, row_multiple=4)
    assert 1 <= len(shapes) <= num_shapes
    assert np.isfinite(
        padded_tokens(source, target, [(shape.source, shape.target) for shape in shapes])
    )
    for shape in shapes:
        assert shape.rows % 4 == 0
        assert shape.rows * max(shape[1:]) <= 500 < (shape.rows + 4) * max(shape[1:])


def test_a_single_shape_fits_the_longest_sides() -> None:
    source, target = np.array([3, 9], np.int32), np.array([7, 2], np.int32)
    assert choose_shapes(source, target, 1, batch_tokens=90) == [Shape(10, 9, 7)]


def test_equal_lengths_need_one_shape() -> None:
    same = np.full(50, 6, np.int32)
    assert choose_shapes(same, same, 8, batch_tokens=60) == [Shape(10, 6, 6)]


@pytest.mark.parametrize("seed", range(5))
def test_two_shapes_are_optimal(seed: int) -> None:
    source, target = lengths(seed, 300, longest=12)
    chosen = [
        (shape.source, shape.target) for shape in choose_shapes(source, target, 2, batch_tokens=100)
    ]
    largest = (int(source.max()), int(target.max()))
    best = min(
        padded_tokens(source, target, [largest, box])
        for box in itertools.product(range(1, 13), repeat=2)
    )
    assert padded_tokens(source, target, chosen) == best


@pytest.mark.parametrize("seed", range(5))
def test_three_shapes_are_nearly_optimal(seed: int) -> None:
    source, target = lengths(seed, 300, longest=8)
    chosen = [
        (shape.source, shape.target) for shape in choose_shapes(source, target, 3, batch_tokens=100)
    ]
    largest = (int(source.max()), int(target.max()))
    boxes = itertools.product(range(1, 9), repeat=2)
    best = min(
        padded_tokens(source, target, [largest, *two]) for two in itertools.combinations(boxes, 2)
    )
    assert padded_tokens(source, target, chosen) <= 1.02 * best


@pytest.mark.parametrize("num_shapes", [1, 2, 5])
def test_the_cost_of_choosing_does_not_grow_with_the_lengths(num_shapes: int) -> None:
    """An algorithm with a table over lengths would run out of memory here."""
    source, target = lengths(0, 300, longest=12)
    shapes = choose_shapes(source, target, num_shapes, batch_tokens=100)
    scale = 1_000_000
    longer = choose_shapes(source * scale, target * scale, num_shapes, batch_tokens=100 * scale)
    assert longer == [Shape(rows, s * scale, t * scale) for rows, s, t in shapes]


def test_the_error_for_a_small_budget_names_a_sufficient_one() -> None:
    source, target = lengths(0, 100, longest=30)
    needed = 8 * int(max(source.max(), target.max()))
    with pytest.raises(UserError, match=rf"batch_tokens is 50: raise it to {needed} or more"):
        choose_shapes(source, target, 4, batch_tokens=50, row_multiple=8)
    assert choose_shapes(source, target, 4, batch_tokens=needed, row_multiple=8)
