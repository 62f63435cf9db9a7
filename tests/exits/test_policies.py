# SPDX-License-Identifier: Apache-2.0
"""A policy is read from one line, refused in one, and halts where its definition says."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.config import ModelConfig
from dat_jax.errors import UserError
from dat_jax.exits.policies import (
    Confidence,
    Fixed,
    Policy,
    SequenceMultinomial,
    Signal,
    TokenGeometric,
    TokenMultinomial,
    Uniform,
    exit_depth,
    parse_policy,
)
from tests.tiny import tiny_config

N = 3
HEADS = ["sequence_multinomial", "token_multinomial", "token_geometric"]
POLICIES = {
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
}

policies = pytest.mark.parametrize("text", POLICIES)


def model(**changes: Any) -> ModelConfig:
    """A model of three blocks, by default with an exit after each and no exit head."""
    return tiny_config(model=changes).model


def model_for(text: str) -> ModelConfig:
    """A model that can do the policy."""
    kind = text.partition(":")[0]
    return model(exit_head=kind if kind in HEADS else "none")


def refusal(text: str, config: ModelConfig) -> str:
    """What follows `policy is ...` in the one line with which `text` is refused."""
    with pytest.raises(UserError) as caught:
        parse_policy(text, config)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"policy is {text!r}: ")
    return message.removeprefix(f"policy is {text!r}: ")


@policies
def test_every_kind_is_read_and_written_the_same(text):
    policy = parse_policy(text, model_for(text))
    assert policy == POLICIES[text]
    assert parse_policy(str(policy), model_for(text)) == policy


@pytest.mark.parametrize("thresholds", [(1 / 3, 1 / 3), (0.1234567, 0.1234568), (1e-9, 0.9999999)])
def test_thresholds_are_written_with_all_their_digits(thresholds):
    policy = Confidence(thresholds)
    assert parse_policy(str(policy), model()) == policy


@pytest.mark.parametrize("thresholds", [(0.3, 0.3, 0.75), (0.3, 0.75, 0.3), (0.75, 0.3, 0.3)])
def test_thresholds_of_which_some_are_equal_are_all_written(thresholds):
    policy = Confidence(thresholds)
    assert parse_policy(str(policy), model(num_layers=4)) == policy


def test_fixed_alone_is_the_greatest_depth_with_an_exit():
    assert parse_policy("fixed", model(num_layers=5)) == Fixed(5)
    assert parse_policy("fixed", model(num_layers=5, exits="last")) == Fixed(5)


@pytest.mark.parametrize("num_layers", [2, 6])
def test_one_threshold_is_that_of_every_depth_but_the_last(num_layers):
    config = model(num_layers=num_layers, exit_head="token_geometric")
    assert parse_policy("confidence:0.7", config) == Confidence((0.7,) * (num_layers - 1))
    assert parse_policy("token_geometric", config) == TokenGeometric((0.5,) * (num_layers - 1))


@pytest.mark.parametrize("text", ["fixed:0", "fixed:7", "fixed:-1", "fixed:1.5", "fixed:two"])
def test_a_depth_without_an_exit_is_refused_with_those_that_have_one(text):
    assert refusal(text, model()) == "the model has exits at depth 1, 2, 3"


def test_a_model_with_one_exit_has_no_other():
    assert refusal("fixed:2", model(exits="last")) == "the model has exits at depth 3"


@pytest.mark.parametrize("text", ["", "Fixed", "fix:1", "3", "fixed 3", ":1", "confidence 0.5"])
def test_an_unknown_policy_is_refused_with_what_is_known(text):
    assert refusal(text, model()) == (
        "must be one of fixed[:DEPTH], uniform[:SEED], sequence_multinomial, token_multinomial, "
        "token_geometric[:TAU], confidence:TAU"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "confidence:0.5,0.5,0.5",
            "needs 1 threshold, or 2, one for each depth but the last, not 3",
        ),
        ("confidence:1.5", "thresholds must be in [0, 1]"),
        ("confidence:0.5,-0.1", "thresholds must be in [0, 1]"),
        ("confidence:nan", "thresholds must be in [0, 1]"),
        ("confidence:inf", "thresholds must be in [0, 1]"),
        ("confidence:high", "thresholds must be numbers with commas between them"),
        ("confidence:0.5,", "thresholds must be numbers with commas between them"),
        ("confidence:0.5;0.5", "thresholds must be numbers with commas between them"),
        ("confidence", "thresholds must be numbers with commas between them"),
        ("token_geometric:2", "thresholds must be in [0, 1]"),
        ("token_geometric:,", "thresholds must be numbers with commas between them"),
        ("uniform:-1", "the seed must be a whole number from 0 to 2^31 - 1"),
        ("uniform:0.5", "the seed must be a whole number from 0 to 2^31 - 1"),
        ("uniform:x", "the seed must be a whole number from 0 to 2^31 - 1"),
        ("uniform:2147483648", "the seed must be a whole number from 0 to 2^31 - 1"),
        ("fixed:", "must read fixed[:DEPTH]"),
        ("uniform:", "must read uniform[:SEED]"),
        ("token_geometric:", "must read token_geometric[:TAU]"),
        ("confidence:", "must read confidence:TAU"),
        ("sequence_multinomial:1", "must read sequence_multinomial"),
        ("sequence_multinomial:", "must read sequence_multinomial"),
        ("token_multinomial:0.5", "must read token_multinomial"),
    ],
)
def test_a_bad_argument_is_refused_with_what_it_must_be(text, complaint):
    assert refusal(text, model_for(text)) == complaint


@pytest.mark.parametrize("head", ["none", *HEADS])
def test_a_head_that_the_model_lacks_is_refused_with_what_it_can_do(head):
    own = {"none": "", "token_geometric": "token_geometric[:TAU], "}.get(head, f"{head}, ")
    for other in set(HEADS) - {head}:
        assert refusal(other, model(exit_head=head)) == (
            "this model has no exit head or exits for it; it can decode with "
            f"fixed[:DEPTH], uniform[:SEED], {own}confidence:TAU"
        )


@pytest.mark.parametrize("text", ["uniform", "confidence:0.5", *HEADS])
def test_a_model_with_one_exit_can_do_fixed_only(text):
    assert refusal(text, model(exits="last")) == (
        "this model has no exit head or exits for it; it can decode with fixed[:DEPTH]"
    )


def exits(policy: Policy, signals: Sequence[Any]) -> list[int]:
    """The depth at which each token leaves, given the signal after each block but the last."""
    halts = [policy.halts(depth, signal) for depth, signal in enumerate(signals, start=1)]
    never = jnp.ones_like(halts[0])
    return (1 + jnp.argmax(jnp.stack([*halts, never]), axis=0)).ravel().tolist()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_fixed_halts_at_its_depth(depth):
    assert Fixed(depth).signal is Signal.NOTHING
    assert exits(Fixed(depth), [jnp.zeros(()), jnp.ones(())]) == [depth]


def test_uniform_halts_in_the_third_of_zero_to_one_that_the_draw_is_in():
    assert Uniform(N, 0).signal is Signal.DRAW
    draws = jnp.asarray([0.0, 0.33, 0.34, 0.66, 0.67, 0.999])
    assert exits(Uniform(N, 0), [draws, draws]) == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("policy", "signal"),
    [(SequenceMultinomial(), Signal.SENTENCE), (TokenMultinomial(), Signal.FIRST_STATE)],
)
def test_the_multinomials_halt_at_the_likeliest_depth_and_of_two_at_the_lower(policy, signal):
    assert policy.signal is signal
    rows = [[2.0, 1.0, 0.0], [-1.0, 0.5, 0.0], [0.0, 1.0, 3.0], [0.0, 2.0, 2.0], [1.0, 1.0, 1.0]]
    logits = jnp.asarray(rows)
    assert exits(policy, [logits, logits]) == [1, 2, 3, 2, 1]


def test_geometric_halts_after_the_first_block_whose_probability_is_above_tau():
    policy = TokenGeometric((0.5, 0.75))
    assert policy.signal is Signal.HALTING_UNIT
    # Logits: 0 is a probability of 0.5, which is not above 0.5; 1 is 0.73, 1.2 is 0.77.
    first = jnp.asarray([0.1, 0.0, -9.0, 9.0, -1.0])
    second = jnp.asarray([-9.0, 1.2, 1.0, 9.0, 1.2])
    assert exits(policy, [first, second]) == [1, 2, 3, 1, 2]


def test_confidence_halts_at_the_first_exit_whose_probability_is_above_tau():
    policy = Confidence((0.5, 0.75))
    assert policy.signal is Signal.CLASSIFIER
    first = jnp.asarray([0.6, 0.5, 0.1, 0.9, 0.2])
    second = jnp.asarray([0.1, 0.8, 0.75, 0.9, 0.76])
    assert exits(policy, [first, second]) == [1, 2, 3, 1, 2]


@pytest.mark.parametrize(
    ("policy", "shape"),
    [
        *((Fixed(depth), ()) for depth in (1, 3, 5)),
        (Uniform(5, 0), (200,)),
        (Uniform(5, 0), (20, 10)),
        (SequenceMultinomial(), (200, 5)),
        (TokenMultinomial(), (20, 10, 5)),
        (TokenGeometric((0.5,) * 4), (200,)),
        (Confidence((0.9, 0.7, 0.2, 0.4)), (200,)),
    ],
    ids=str,
)
def test_the_exit_depth_of_one_signal_is_what_asking_depth_by_depth_finds(policy, shape):
    signal = np.random.default_rng(0).random(shape)
    if isinstance(policy, TokenMultinomial):
        signal = signal.round(1)  # so that several depths are the likeliest
    signal = jnp.asarray(signal, jnp.float32)
    found = exit_depth(policy, signal, 5)
    assert found.dtype == jnp.int32
    assert found.ravel().tolist() == exits(policy, [signal] * 4)
    if shape and policy.signal is not Signal.HALTING_UNIT:
        assert set(found.ravel().tolist()) >= {1, 2, 3}


@pytest.mark.parametrize("policy", [Fixed(1), Uniform(1, 0), SequenceMultinomial()], ids=str)
def test_with_one_block_all_exit_there(policy):
    assert (exit_depth(policy, jnp.full((1, 1), 0.9), 1) == 1).all()


def test_only_given_depths_and_the_sentence_s_are_one_for_all_tokens():
    of_sentences = {signal for signal in Signal if signal.is_of_the_sentence}
    assert of_sentences == {Signal.NOTHING, Signal.SENTENCE}


@pytest.mark.parametrize("kind", [TokenGeometric, Confidence])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_thresholds_per_depth_take_effect_at_their_depth_and_at_no_other(kind, depth):
    # A peer's code took a list of thresholds and compared every depth with the same one.
    probability = jnp.asarray([0.5, 0.9])
    signal = jnp.log(probability / (1 - probability)) if kind is TokenGeometric else probability
    low_here = kind(tuple(0.7 if n == depth else 1.0 for n in range(1, 5)))
    halts = {n: low_here.halts(n, signal).tolist() for n in range(1, 5)}
    assert halts.pop(depth) == [False, True]
    assert list(halts.values()) == [[False, False]] * 3
    assert exits(low_here, [signal] * 4) == [5, depth]


def test_policies_of_two_kinds_are_never_taken_for_one_another():
    """JAX finds compiled programs by structure. Those of two registered dataclasses with equal
    fields are equal to it, and only as a rule apart by their hash: one in a hundred was not."""
    kinds = {type(policy): jax.tree.structure(policy) for policy in POLICIES.values()}
    assert len(kinds) == 6
    for kind, structure in kinds.items():
        assert [other for other in kinds if kinds[other] == structure] == [kind]


@pytest.mark.parametrize(
    ("texts", "signal"),
    [
        (("fixed:1", "fixed:3"), [0.0]),
        (("uniform:1", "uniform:2"), [0.4, 0.9]),
        (("token_geometric", "token_geometric:0.9,0.1"), [0.3, 9.0]),
        (("confidence:0.2,0.4", "confidence:0.9"), [0.3, 0.95]),
        (("sequence_multinomial", "sequence_multinomial"), [[1.0, 2.0, 0.0]]),
        (("token_multinomial", "token_multinomial"), [[1.0, 2.0, 0.0]]),
    ],
)
def test_one_compiled_program_serves_all_policies_of_a_kind(texts, signal):
    traces = []
    signal = jnp.asarray(signal)

    @jax.jit
    def halts_of(policy: Policy, signal: jax.Array) -> list[jax.Array]:
        traces.append(policy)
        return [policy.halts(depth, signal) for depth in (1, 2)]

    found = []
    for text in texts:
        policy = parse_policy(text, model_for(text))
        halts = halts_of(policy, signal)
        expected = [policy.halts(depth, signal) for depth in (1, 2)]
        jax.tree.map(np.testing.assert_array_equal, halts, expected)
        found.append(str(halts))
    assert len(traces) == 1
    if texts[0].startswith(("fixed", "confidence", "token_geometric")):
        assert found[0] != found[1]  # the numbers arrive, though they were not there at the trace


def test_a_model_of_one_block_has_no_choice():
    with pytest.raises(UserError, match=r"it can decode with fixed\[:DEPTH\]$"):
        parse_policy("confidence:0.5", model(num_layers=1))
