# SPDX-License-Identifier: Apache-2.0
"""Parsing policies: one-line names, round trips and one-line errors."""

from typing import Any

import pytest

from dat_jax.config import ModelConfig
from dat_jax.errors import UserError
from dat_jax.exits.parsing import Policy, parse_policy
from dat_jax.exits.questions import Rule
from dat_jax.exits.rules import (
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
from tests.tiny import tiny_config

N = 3
FALLING = "FIRST-LAST must be two depths from 1 to 3, and FIRST no less than LAST"
HEADS = ["sequence_multinomial", "token_multinomial", "token_geometric"]
RULES: dict[str, Rule] = {
    "fixed": Fixed(3),
    "fixed:1": Fixed(1),
    "fixed:3": Fixed(3),
    "uniform": Uniform(N, 0),
    "uniform:7": Uniform(N, 7),
    "sequence_multinomial": SequenceMultinomial(),
    "token_multinomial": TokenMultinomial(),
    "token_geometric": TokenGeometric((0.5, 0.5)),
    "token_geometric:0.25": TokenGeometric((0.25, 0.25)),
    "token_geometric:0,1": TokenGeometric((0.0, 1.0)),
    "confidence:0.9": Confidence((0.9, 0.9)),
    "confidence:0.3,0.75": Confidence((0.3, 0.75)),
    "margin:0.3,0.75": Margin((0.3, 0.75)),
    "similarity:0.98": Similarity((0.98,)),
    "patience:2": Patience(2),
    "schedule:3-1": Schedule(3, 1),
    "schedule:2-2": Schedule(2, 2),
}

texts = pytest.mark.parametrize("text", RULES)


def model(**changes: Any) -> ModelConfig:
    """A model of three blocks, by default with an exit after each and no exit head."""
    return tiny_config(model=changes).model


def model_for(text: str) -> ModelConfig:
    """A model that supports the policy."""
    kind = text.partition(":")[0]
    return model(exit_head=kind if kind in HEADS else "none")


def refusal(text: str, config: ModelConfig) -> str:
    """The one-line error for `text`, without its prefix `policy is 'TEXT': `."""
    with pytest.raises(UserError) as caught:
        parse_policy(text, config)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"policy is {text!r}: ")
    return message.removeprefix(f"policy is {text!r}: ")


@texts
def test_every_policy_survives_a_round_trip(text):
    policy = parse_policy(text, model_for(text))
    assert policy.rule == RULES[text]
    assert policy.name == str(policy.rule)
    assert parse_policy(policy.name, model_for(text)) == policy


@pytest.mark.parametrize("thresholds", [(1 / 3, 1 / 3), (0.1234567, 0.1234568), (1e-9, 0.9999999)])
def test_names_keep_all_digits_of_thresholds(thresholds):
    policy = Policy.of(Confidence(thresholds))
    assert parse_policy(policy.name, model()) == policy


@pytest.mark.parametrize("thresholds", [(0.3, 0.3, 0.75), (0.3, 0.75, 0.3), (0.75, 0.3, 0.3)])
def test_names_keep_repeated_thresholds(thresholds):
    policy = Policy.of(Confidence(thresholds))
    assert parse_policy(policy.name, model(decoder_layers=4)) == policy


def test_fixed_without_a_depth_means_the_deepest_exit():
    assert parse_policy("fixed", model(decoder_layers=5)).rule == Fixed(5)
    assert parse_policy("fixed", model(decoder_layers=5, exits="last")).rule == Fixed(5)


@pytest.mark.parametrize("decoder_layers", [2, 6])
def test_one_threshold_applies_to_every_depth_but_the_last(decoder_layers):
    config = model(decoder_layers=decoder_layers, exit_head="token_geometric")
    count = decoder_layers - 1
    assert parse_policy("confidence:0.7", config).rule == Confidence((0.7,) * count)
    assert parse_policy("token_geometric", config).rule == TokenGeometric((0.5,) * count)


@pytest.mark.parametrize("text", ["fixed:0", "fixed:7", "fixed:-1", "fixed:1.5", "fixed:two"])
def test_a_depth_without_an_exit_is_refused(text):
    assert refusal(text, model()) == "the depth must be one of 1, 2, 3"


def test_a_model_with_one_exit_refuses_other_depths():
    assert refusal("fixed:2", model(exits="last")) == "the depth must be one of 3"


@pytest.mark.parametrize("text", ["", "Fixed", "fix:1", "3", "fixed 3", ":1", "confidence 0.5"])
def test_the_error_for_an_unknown_policy_lists_all_policies(text):
    assert refusal(text, model()) == (
        "must be one of fixed[:DEPTH], uniform[:SEED], schedule:FIRST-LAST, "
        "sequence_multinomial, token_multinomial, "
        "token_geometric[:TAU], confidence:TAU, margin:TAU, similarity:TAU, patience:K, "
        "FILE.py:CLASS[:ARGUMENT]"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "confidence:0.5,0.5,0.5",
            "needs 1 threshold, or 2, one for each depth except the last, not 3",
        ),
        ("confidence:1.5", "thresholds must be in [0, 1]"),
        ("confidence:0.5,-0.1", "thresholds must be in [0, 1]"),
        ("confidence:nan", "thresholds must be in [0, 1]"),
        ("confidence:inf", "thresholds must be in [0, 1]"),
        ("confidence:high", "thresholds must be numbers separated by commas"),
        ("confidence:0.5,", "thresholds must be numbers separated by commas"),
        ("confidence:0.5;0.5", "thresholds must be numbers separated by commas"),
        ("confidence", "must have the form confidence:TAU"),
        ("token_geometric:2", "thresholds must be in [0, 1]"),
        ("token_geometric:,", "thresholds must be numbers separated by commas"),
        ("margin:1.5", "thresholds must be in [0, 1]"),
        ("similarity", "must have the form similarity:TAU"),
        (
            "similarity:0.5,0.5",
            "needs 1 threshold, or 1, one for each depth from 2 on except the last, not 2",
        ),
        ("patience:0", "the number of exits must be an integer from 1 to 3"),
        ("patience:4", "the number of exits must be an integer from 1 to 3"),
        ("patience:-1", "the number of exits must be an integer from 1 to 3"),
        ("patience:1.5", "the number of exits must be an integer from 1 to 3"),
        ("patience:", "must have the form patience:K"),
        ("schedule:1-2", FALLING),
        ("schedule:4-1", FALLING),
        ("schedule:3-0", FALLING),
        ("schedule:3", FALLING),
        ("schedule:3-2-1", FALLING),
        ("schedule:", "must have the form schedule:FIRST-LAST"),
        ("uniform:-1", "the seed must be an integer from 0 to 2^31 - 1"),
        ("uniform:0.5", "the seed must be an integer from 0 to 2^31 - 1"),
        ("uniform:x", "the seed must be an integer from 0 to 2^31 - 1"),
        ("uniform:2147483648", "the seed must be an integer from 0 to 2^31 - 1"),
        ("fixed:", "must have the form fixed[:DEPTH]"),
        ("uniform:", "must have the form uniform[:SEED]"),
        ("token_geometric:", "must have the form token_geometric[:TAU]"),
        ("confidence:", "must have the form confidence:TAU"),
        ("sequence_multinomial:1", "must have the form sequence_multinomial"),
        ("sequence_multinomial:", "must have the form sequence_multinomial"),
        ("token_multinomial:0.5", "must have the form token_multinomial"),
    ],
)
def test_the_error_for_a_bad_argument_says_what_it_must_be(text, complaint):
    assert refusal(text, model_for(text)) == complaint


@pytest.mark.parametrize("head", ["none", *HEADS])
def test_the_error_for_a_missing_head_lists_what_the_model_supports(head):
    own = {"none": "", "token_geometric": "token_geometric[:TAU], "}.get(head, f"{head}, ")
    for other in set(HEADS) - {head}:
        assert refusal(other, model(exit_head=head)) == (
            "this model lacks the exit head or the exits for it; use one of "
            f"fixed[:DEPTH], uniform[:SEED], schedule:FIRST-LAST, {own}confidence:TAU, margin:TAU, "
            "similarity:TAU, patience:K"
        )


@pytest.mark.parametrize("text", ["uniform", "confidence:0.5", *HEADS])
def test_a_model_with_one_exit_supports_only_fixed(text):
    assert refusal(text, model(exits="last")) == (
        "this model lacks the exit head or the exits for it; use one of fixed[:DEPTH]"
    )


def test_similarity_needs_three_blocks():
    assert parse_policy("similarity:0.9,0.8", model(decoder_layers=4)).rule == Similarity(
        (0.9, 0.8)
    )
    with pytest.raises(UserError, match=r"use one of .*margin:TAU, patience:K$"):
        parse_policy("similarity:0.9", model(decoder_layers=2))


def test_a_model_with_one_block_supports_only_fixed():
    with pytest.raises(UserError, match=r"use one of fixed\[:DEPTH\]$"):
        parse_policy("confidence:0.5", model(decoder_layers=1))
