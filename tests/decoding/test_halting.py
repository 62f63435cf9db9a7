# SPDX-License-Identifier: Apache-2.0
"""One rule that uses every question and remembers, through the engine, against plain Python.

Real rules use one question each. This one looks at all that a rule may see, so that an engine which
asks too late, with other states or with another token's memory finds other exits.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.data.vocabulary import EOS
from dat_jax.decoding.halting import Halting
from dat_jax.decoding.unstacked import UnstackedModel, unstack
from dat_jax.exits.questions import Block, Classified, Need, Plan, Rule, Sentence, Token
from dat_jax.exits.rules import Fixed
from tests.decoding.lively import (
    LENGTH_PENALTY,
    LIMITS,
    MAX_LENGTH,
    NUMBERS,
    ROWS,
    SOURCE,
    make_model,
    run,
)
from tests.decoding.plain_rules import Hypothesis, Outputs, PlainDecoder, search_without_cache

KIND = "deep"  # four blocks, a classifier each, and an exit head for sentences
MARGIN = 0.1
MOST_CHANGE = 4.0


@dataclasses.dataclass(frozen=True)
class Probe(Rule):
    """Exits by the sentence's head, the token's place, how far the state has moved, and when two
    exits in a row find the same token likeliest by a margin."""

    margin: float
    most_change: float

    kind = "probe"
    needs = frozenset({Need.SENTENCE_LOGITS, Need.CLASSIFIER})
    carry_width = 2  # how far the state has moved; the token that was found last, and 1

    def before_sentence(self, sentence: Sentence, exit_at: jax.Array) -> jax.Array:
        assert sentence.logits is not None
        return exit_at - jnp.argmax(sentence.logits, axis=-1) % 2

    def before_token(self, token: Token, plan: Plan) -> Plan:
        at_once = (token.number + token.position) % 3 == 0
        is_last = token.position + 1 == token.limit
        return plan.exit_where((at_once & ~is_last)[:, None], jnp.ones_like(plan.exit_at))

    def after_block(self, block: Block, plan: Plan) -> Plan:
        moved = jnp.mean(jnp.abs(block.after - block.before), axis=-1)
        change = plan.carry[..., 0] + moved
        plan = plan._replace(carry=plan.carry.at[..., 0].set(change))
        return plan.exit_where(change > self.most_change, block.depth)

    def after_classifier(self, classified: Classified, plan: Plan) -> Plan:
        top, tokens = classified.top_logits, classified.top_tokens
        probability = jnp.exp(top - classified.normaliser[..., None])
        sure = jnp.log(probability[..., 0] / probability[..., 1]) > self.margin
        again = plan.carry[..., 1] == tokens[..., 0] + 1
        plan = plan._replace(carry=plan.carry.at[..., 1].set(tokens[..., 0] + 1.0))
        return plan.exit_where(sure & again, classified.depth)


RULE = Probe(MARGIN, MOST_CHANGE)


@dataclasses.dataclass
class PlainProbe(PlainDecoder):
    """The same rule on one token's whole pass."""

    number: int = 0
    limit: int = 0
    asked: list[str] = dataclasses.field(default_factory=list)
    """The question that let each token leave."""

    def exit_of(self, outputs: Outputs, position: int, beam: int) -> int:
        depths = self.model.config.decoder_layers
        ceiling = depths - int(np.argmax(outputs.exit_logits)) % 2
        if (self.number + position) % 3 == 0 and position + 1 != self.limit:
            return self._left("token", 1)
        change, last = 0.0, None
        for depth in range(1, depths + 1):
            before, after = outputs.states[depth - 1 : depth + 1, position]
            change += float(np.abs(after - before).mean())
            if depth < depths and change > MOST_CHANGE:
                return self._left("block", depth)
            log_probs = outputs.log_probs[depth - 1, position]
            second, first = np.argsort(log_probs[EOS:])[-2:] + EOS  # no others are written
            if depth >= ceiling:
                return self._left("sentence" if ceiling < depths else "depth", depth)
            if first == last and log_probs[first] - log_probs[second] > MARGIN:
                return self._left("classifier", depth)
            last = first
        raise AssertionError("the deepest exit is passed")

    def _left(self, why: str, depth: int) -> int:
        self.asked.append(why)
        return depth


@functools.cache
def plain(beam_size: int) -> tuple[list[Hypothesis], set[str]]:
    """Hypotheses by the slow twin, and what its tokens left for."""
    (model, params), found, reasons = make_model(KIND), [], set()
    for row in range(ROWS):
        decoder = PlainProbe(
            model,
            params,
            SOURCE[row],
            RULE,
            MAX_LENGTH,
            np.zeros((MAX_LENGTH, beam_size)),
            number=int(NUMBERS[row]),
            limit=int(LIMITS[row]),
        )
        found.append(search_without_cache(decoder, int(LIMITS[row]), beam_size, LENGTH_PENALTY))
        reasons |= set(decoder.asked)
    return found, reasons


HOW = {"masked": {}, "gathered": {"sizes": (2, 3), "windows": (3,), "projected": 2}}


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("how", HOW)
def test_every_question_is_asked_with_what_it_should_see(how: str, beam_size: int):
    """With fewer slots than sentences."""
    found, _ = run(KIND, beam_size, RULE, slots=4, refill=2, **HOW[how])
    for row, expected in enumerate(plain(beam_size)[0]):
        length = len(expected.tokens)
        assert tuple(found.tokens[row, :length].tolist()) == expected.tokens
        assert tuple(found.exits[row, :length].tolist()) == expected.exits
        np.testing.assert_allclose(found.scores[row], expected.score, rtol=1e-4)


def test_tokens_leave_for_every_reason():
    reasons = plain(1)[1] | plain(3)[1]
    assert reasons == {"sentence", "token", "block", "classifier", "depth"}


def ask_before_tokens(rule: Rule) -> Plan:
    """Plans for two tokens of each of three sentences."""
    model, params = make_model(KIND)
    halting = Halting(UnstackedModel(model, unstack(model, params), 4), rule)
    numbers = jnp.arange(3)
    ceilings = halting.before_sentence(jnp.zeros((3, 2, 12)), jnp.ones((3, 2), bool))
    return halting.before_token(ceilings, numbers, numbers, numbers, 2)


def test_an_answer_never_puts_an_exit_off():
    """The memory is projected no further up than was said of the sentence."""

    class Procrastinating(Rule):
        def before_sentence(self, sentence: Sentence, exit_at: jax.Array) -> jax.Array:
            return exit_at - 2

        def before_token(self, token: Token, plan: Plan) -> Plan:
            return plan._replace(exit_at=plan.exit_at + 1)

    assert ask_before_tokens(Procrastinating()).exit_at.tolist() == [[2, 2]] * 3


def test_a_rule_for_sentences_is_asked_nothing_of_tokens():
    """Their states are copied nowhere, so that none may leave before the others."""

    class TwoMinded(Fixed):
        def before_token(self, token: Token, plan: Plan) -> Plan:
            return plan._replace(exit_at=jnp.ones_like(plan.exit_at))

    assert ask_before_tokens(TwoMinded(3)).exit_at.tolist() == [[3, 3]] * 3
