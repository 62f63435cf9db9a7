# SPDX-License-Identifier: Apache-2.0
"""Settings of decoding that only some rules can use: refused, or left out."""

import dataclasses

import pytest

from configs.base import get_config
from dat_jax.config import Config, DecodingConfig
from dat_jax.decoding.rule_settings import check_rule_settings, suited
from dat_jax.errors import UserError
from dat_jax.exits.rules import Confidence, Fixed, Rule, Schedule, SequenceMultinomial, Uniform

V = 11


def decoding(**changes) -> DecodingConfig:
    config = Config.from_dict(get_config().to_dict()).decoding
    return dataclasses.replace(config, **changes)


@pytest.mark.parametrize(
    ("rule", "settings", "complaint"),
    [
        (Confidence((0.5,)), {"beam_size": 4, "shortlist": 7}, "must be from 8 to 11"),
        (Confidence((0.5,)), {"beam_size": 4, "shortlist": 12}, "must be from 8 to 11"),
        (Fixed(2), {"beam_size": 1, "shortlist": 4}, "fixed:2 needs no classifier"),
    ],
)
def test_an_impossible_shortlist_is_refused(rule, settings, complaint):
    with pytest.raises(UserError, match=complaint):
        check_rule_settings(decoding(**settings), rule, V)


def test_a_configured_shortlist_applies_only_to_rules_that_take_one():
    settings = decoding(shortlist=8)
    assert suited(settings, Confidence((0.5,))).shortlist == 8
    assert suited(settings, Fixed(2)).shortlist == 0


@pytest.mark.parametrize("rule", [Fixed(2), Schedule(4, 2), SequenceMultinomial()], ids=str)
def test_rules_under_which_nobody_copies_refuse_a_gap(rule: Rule):
    message = f"trailing_gap is 0.5, and under {rule} no token exits deeper than an earlier one"
    with pytest.raises(UserError, match=message):
        check_rule_settings(decoding(trailing_gap=0.5), rule, 99)
    assert suited(decoding(trailing_gap=0.5), rule).trailing_gap == 0
    assert suited(decoding(trailing_gap=0.5), rule, {"trailing_gap"}).trailing_gap == 0.5


@pytest.mark.parametrize("rule", [Confidence((0.5,)), Uniform(4, 0)], ids=str)
def test_other_rules_take_a_gap(rule: Rule):
    check_rule_settings(decoding(trailing_gap=0.5), rule, 99)
    assert suited(decoding(trailing_gap=0.5), rule).trailing_gap == 0.5
