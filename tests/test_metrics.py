# SPDX-License-Identifier: Apache-2.0
"""Means are added as sums and counts, and divided once."""

import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.metrics import Mean, add, compute


def test_adding_weights_each_part_by_its_count():
    left = {"loss": Mean(6.0, 3), "nll": Mean(np.array([4.0, 2.0]), 2)}
    right = {"loss": Mean(1.0, 1), "nll": Mean(np.array([2.0, 6.0]), 6)}
    values = compute(add(left, right), (1, 2))
    assert values == {"loss": 1.75, "nll/exit_1": 0.75, "nll/exit_2": 1.0}


def test_exits_are_named_by_their_depths():
    assert compute({"nll": Mean(jnp.asarray([3.0]), jnp.asarray(2))}, (6,)) == {"nll/exit_6": 1.5}


def test_values_are_plain_floats():
    metrics = {"loss": Mean(jnp.asarray(1.0), jnp.asarray(2)), "nll": Mean(jnp.ones(2), 2)}
    assert {type(value) for value in compute(metrics, (1, 2)).values()} == {float}


@pytest.mark.parametrize(("mean", "value"), [(Mean(3.0, 1), 3.0), (Mean(0.0, 0), 0.0)])
def test_a_mean_of_one_is_its_value_and_of_none_zero(mean: Mean, value: float):
    assert compute({"loss": mean}, (1,)) == {"loss": value}


def test_the_number_of_values_must_equal_the_number_of_exits():
    with pytest.raises(ValueError, match="zip"):
        compute({"nll": Mean(np.ones(3), 1)}, (1, 2))
