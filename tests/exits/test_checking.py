# SPDX-License-Identifier: Apache-2.0
"""A rule with a mistake is refused in one line that names the question and the shape."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from dat_jax.errors import UserError
from dat_jax.exits.checking import check_rule
from dat_jax.exits.parsing import available_rules
from dat_jax.exits.questions import Block, Classified, Need, Plan, Rule, Sentence, Token
from tests.tiny import tiny_config

MODEL = tiny_config().model
D = MODEL.decoder_dim


@dataclasses.dataclass(frozen=True)
class Mistaken(Rule):
    """Answers as it is told to."""

    number: Any = 0.5


def mistaken(question: str, answer: Any, **attributes: Any) -> Rule:
    """A rule that gives this answer to one question."""
    cls = type("Mine", (Mistaken,), {question: answer, **attributes})
    return dataclasses.dataclass(frozen=True)(cls)()


def exits(value: Any) -> Any:
    """Answers with a plan of these exits, made from the plan that is there."""
    return lambda self, seen, plan: plan._replace(exit_at=value(seen, plan))


def carries(value: Any) -> Any:
    return lambda self, seen, plan: plan._replace(carry=value(plan.carry))


CLASSIFIER = {"needs": frozenset({Need.CLASSIFIER})}


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        (
            mistaken("after_block", exits(lambda seen, plan: seen.after.argmax(axis=0))),
            f"after_block answers with exits of int32[{D}]: must be int32[5]",
        ),
        (
            mistaken("after_block", exits(lambda seen, plan: plan.exit_at[:, None])),
            "after_block answers with exits of int32[5,1]: must be int32[5]",
        ),
        (
            mistaken("after_block", exits(lambda seen, plan: plan.exit_at / 2)),
            "after_block answers with exits of float32[5]: must be int32[5]",
        ),
        (
            mistaken("before_token", exits(lambda seen, plan: seen.position)),
            "before_token answers with exits of int32[3]: must be int32[3,2]",
        ),
        (
            mistaken("before_sentence", lambda self, seen, exit_at: exit_at[:2]),
            "before_sentence answers with exits of int32[2]: must be int32[3]",
        ),
        (
            mistaken("before_sentence", lambda self, seen, exit_at: None),
            "before_sentence answers with exits of NoneType: must be int32[3]",
        ),
        (
            mistaken("after_block", lambda self, seen, plan: None),
            "after_block answers NoneType: must be a Plan",
        ),
        (
            mistaken("after_block", carries(lambda carry: carry[..., :1]), carry_width=2),
            "after_block answers with a carry of float32[5,1]: must be float32[5,2]",
        ),
        (
            mistaken("after_block", carries(lambda carry: carry.astype(int)), carry_width=2),
            "after_block answers with a carry of int32[5,2]: must be float32[5,2]",
        ),
        (
            mistaken("after_block", exits(lambda seen, plan: seen.after + seen.logits)),
            "after_block fails with TypeError at line",
        ),
        (
            mistaken("after_block", exits(lambda seen, plan: seen.before @ seen.after)),
            "after_block fails with TypeError at line",
        ),
        (
            mistaken("after_classifier", exits(lambda seen, plan: seen.top_tokens), **CLASSIFIER),
            "after_classifier answers with exits of int32[5,4]: must be int32[5]",
        ),
        (
            mistaken("deepest", lambda self, layers: 9, before_token=exits(lambda seen, plan: 1)),
            "9",
        ),
        (
            mistaken("deepest", lambda self, _: 2.0, before_token=exits(lambda seen, plan: 1)),
            "deepest answers 2.0: must be an integer from 1 to",
        ),
        (
            mistaken("own_flops", lambda self, *_: None, before_token=exits(lambda seen, plan: 1)),
            "own_flops fails with TypeError",
        ),
        (
            dataclasses.replace(
                mistaken("before_token", exits(lambda seen, plan: 1)), number="often"
            ),
            "its fields must be numbers or tuples of them",
        ),
    ],
)
def test_a_mistake_is_refused_in_one_line(rule: Rule, complaint: str):
    with pytest.raises(UserError) as caught:
        check_rule(rule, MODEL)
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("policy is Mine(number=")
    assert "\n" not in str(caught.value)


def test_what_broadcasts_to_the_right_shape_is_taken():
    one_for_a_sentence = exits(lambda seen, plan: seen.position[:, None])
    check_rule(mistaken("before_token", one_for_a_sentence), MODEL)
    check_rule(mistaken("before_token", exits(lambda seen, plan: jnp.int32(1))), MODEL)


@pytest.mark.parametrize("head", ["none", "sequence_multinomial", "token_multinomial"])
def test_every_rule_of_the_package_passes(head: str):
    config = tiny_config(model={"exit_head": head, "decoder_layers": 4}).model
    arguments = {":TAU": "0.5", ":K": "2", ":FIRST-LAST": "3-1"}
    for kind in available_rules(config):
        check_rule(kind.parse(arguments.get(kind.argument, ""), 4), config)


def test_it_asks_with_the_shapes_that_the_engine_has():
    """And with all that a rule may see."""
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Curious(Rule):
        taus: Any

        needs = frozenset({Need.SENTENCE_LOGITS, Need.FIRST_STATE_LOGITS, Need.CLASSIFIER})
        carry_width = 2

        def before_sentence(self, sentence: Sentence, exit_at: jax.Array) -> jax.Array:
            seen.append((sentence, exit_at, self.taus))
            return exit_at

        def before_token(self, token: Token, plan: Plan) -> Plan:
            seen.append((token, plan))
            return plan

        def after_block(self, block: Block, plan: Plan) -> Plan:
            seen.append((block, plan))
            return plan

        def after_classifier(self, classified: Classified, plan: Plan) -> Plan:
            seen.append((classified, plan))
            return plan

    check_rule(Curious((0.5, 0.25)), MODEL)
    shapes = [[leaf.shape for leaf in jax.tree.leaves(inputs)] for inputs in seen]
    plan = [(5,), (5, 2)]
    assert shapes == [
        [(3, 3), (3,), (2,)],
        [(3,), (3,), (3,), (3, 2), (3, 2, 2)],
        [(5,), (5, D), (5, D), (5, 3), *plan],
        [(5,), (5, D), (5, D), *plan],
        [(5,), (5, 97), (5,), (5, 4), (5, 4), *plan],
    ]
