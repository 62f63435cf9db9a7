# SPDX-License-Identifier: Apache-2.0
"""A rule that uses every question and carries memory: the engine equals plain Python.

Real rules use one question each. This one reads everything that a rule may see, so an engine that
asks too late, with wrong states or with another token's memory finds different exits.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.data.vocabulary import EOS
from dat_jax.decoding.halting import Halting
from dat_jax.decoding.next_tokens import NextTokens
from dat_jax.decoding.unstacked import UnstackedModel, unstack
from dat_jax.exits.questions import Block, Classified, Need, Plan, Rule, Sentence, Token
from dat_jax.exits.rules import Fixed
from tests.decoding.cases import assert_as_without_cache
from tests.decoding.lively import (
    LENGTH_PENALTY,
    LIMITS,
    MAX_LENGTH,
    NUMBERS,
    ROWS,
    SOURCE,
    make_model,
    run,
    settings,
)
from tests.decoding.plain_rules import Hypothesis, Outputs, PlainDecoder, search_without_cache

KIND = "deep"  # four blocks, a classifier for each, and a sentence-level exit head
MARGIN = 0.1
MOST_CHANGE = 4.0


@dataclasses.dataclass(frozen=True)
class Probe(Rule):
    """Exits by the sentence's head, by the token's position, when the state has moved far enough,
    and when two consecutive exits agree on the top token by a margin."""

    margin: float
    most_change: float

    kind = "probe"
    needs = frozenset({Need.SENTENCE_LOGITS, Need.CLASSIFIER})
    carry_width = 2  # distance that the state has moved; the last top token, plus 1

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
    """The same rule applied to one token's whole pass."""

    number: int = 0
    limit: int = 0
    asked: list[str] = dataclasses.field(default_factory=list)
    """The question that made each token exit."""

    def exit_of(self, outputs: Outputs, position: int, beam: int) -> int:
        depths = self.model.config.decoder_layers
        ceiling = depths - int(np.argmax(outputs.exit_logits)) % 2
        if (self.number + position) % 3 == 0 and position + 1 != self.limit:
            return self._exit("token", 1)
        change, last = 0.0, None
        for depth in range(1, depths + 1):
            before, after = outputs.states[depth - 1 : depth + 1, position]
            change += float(np.abs(after - before).mean())
            if depth < depths and change > MOST_CHANGE:
                return self._exit("block", depth)
            log_probs = outputs.log_probs[depth - 1, position]
            second, first = np.argsort(log_probs[EOS:])[-2:] + EOS  # no others are generated
            if depth >= ceiling:
                return self._exit("sentence" if ceiling < depths else "depth", depth)
            if first == last and log_probs[first] - log_probs[second] > MARGIN:
                return self._exit("classifier", depth)
            last = first
        raise AssertionError("no exit at or below the deepest")

    def _exit(self, why: str, depth: int) -> int:
        self.asked.append(why)
        return depth


@functools.cache
def plain(beam_size: int) -> tuple[list[Hypothesis], set[str]]:
    """The slow twin's hypotheses, and the questions that made its tokens exit."""
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


@pytest.mark.parametrize(
    ("beam_size", "how"),
    [(1, {}), (3, {"sizes": (3,), "windows": (3,), "projected": 2})],
    ids=["greedy on all rows", "beam on some"],
)
def test_the_engine_asks_every_question_with_the_right_arguments(how: dict, beam_size: int):
    """There are fewer slots than sentences."""
    found, _ = run(KIND, beam_size, RULE, slots=4, refill=2, **how)
    assert_as_without_cache(found, plain(beam_size)[0])


def test_tokens_exit_for_every_reason():
    reasons = plain(1)[1] | plain(3)[1]
    assert reasons == {"sentence", "token", "block", "classifier", "depth"}


def ask_before_tokens(rule: Rule) -> Plan:
    """Plans for two tokens of each of three sentences."""
    model, params = make_model(KIND)
    unstacked = UnstackedModel(model, unstack(model, params), 4)
    halting = Halting(unstacked, rule, NextTokens(unstacked, settings(2, 3)))
    numbers = jnp.arange(3)
    ceilings = halting.before_sentence(jnp.zeros((3, 2, 12)), jnp.ones((3, 2), bool))
    return halting.before_token(ceilings, numbers, numbers, numbers, 2)


def test_a_later_answer_never_delays_an_exit():
    """The memory is projected only for the blocks that the sentence may reach."""

    class Procrastinating(Rule):
        def before_sentence(self, sentence: Sentence, exit_at: jax.Array) -> jax.Array:
            return exit_at - 2

        def before_token(self, token: Token, plan: Plan) -> Plan:
            return plan._replace(exit_at=plan.exit_at + 1)

    assert ask_before_tokens(Procrastinating()).exit_at.tolist() == [[2, 2]] * 3


def test_sentence_level_rules_are_not_queried_per_token():
    """Such rules copy no states, so no token may exit before the others."""

    class TwoMinded(Fixed):
        def before_token(self, token: Token, plan: Plan) -> Plan:
            return plan._replace(exit_at=jnp.ones_like(plan.exit_at))

    assert ask_before_tokens(TwoMinded(3)).exit_at.tolist() == [[3, 3]] * 3
