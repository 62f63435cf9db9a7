# SPDX-License-Identifier: Apache-2.0
"""A policy is read from one line, and refused in one."""

import pytest

from dat_jax.errors import UserError
from dat_jax.exits.policies import Fixed, parse_policy


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_fixed_depth_is_read_and_written_the_same(depth):
    policy = parse_policy(f"fixed:{depth}", (1, 2, 3))
    assert policy == Fixed(depth)
    assert parse_policy(str(policy), (1, 2, 3)) == policy


@pytest.mark.parametrize("exit_depths", [(1, 2, 3), (6,)])
def test_fixed_alone_is_the_greatest_depth(exit_depths):
    assert parse_policy("fixed", exit_depths) == Fixed(exit_depths[-1])


@pytest.mark.parametrize("text", ["fixed:0", "fixed:4", "fixed:-1", "fixed:1.5", "fixed:two"])
def test_a_depth_without_an_exit_is_refused_with_those_that_have_one(text):
    with pytest.raises(UserError) as caught:
        parse_policy(text, (1, 2, 3))
    assert str(caught.value) == f"policy is {text!r}: the model has exits at depth 1, 2, 3"


def test_a_model_with_one_exit_has_no_other():
    with pytest.raises(UserError, match=r"the model has exits at depth 6$"):
        parse_policy("fixed:2", (6,))


@pytest.mark.parametrize("text", ["", "Fixed", "fix:1", "3", "fixed 3"])
def test_an_unknown_policy_is_refused_with_what_is_known(text):
    with pytest.raises(UserError, match=r"^policy is '.*': must be fixed") as caught:
        parse_policy(text, (1, 2, 3))
    assert "\n" not in str(caught.value)
