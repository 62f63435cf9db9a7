# SPDX-License-Identifier: Apache-2.0
"""Asks an exit rule its four questions and computes what it needs to answer them.

Only this module looks at what a rule needs. The engine asks, and a row exits once its depth reaches
its plan's `exit_at`. An answer can only make an exit earlier, because the memory is projected only
for the blocks up to the sentence's first answer. Sentence-level rules are not queried per token.
"""

import dataclasses

import jax.numpy as jnp

from dat_jax.decoding.next_tokens import Found, NextTokens
from dat_jax.decoding.unstacked import UnstackedModel
from dat_jax.exits.questions import Block, Classified, Need, Plan, Rule, Scope, Sentence, Token
from dat_jax.types import Array, Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class Halting:
    """A rule, the model whose sentences and tokens it decides about, and its classifiers."""

    model: UnstackedModel
    rule: Rule
    next_tokens: NextTokens

    @property
    def classifies_each_block(self) -> bool:
        """True if a classifier runs after every block, not only where a token exits."""
        return self.rule.classifies_each_block

    @property
    def copies_states(self) -> bool:
        """True if tokens may attend to copied states of earlier tokens."""
        return self.rule.copies_states

    def before_sentence(
        self, memory: Float[Array, "B S E"], mask: Bool[Array, "B S"]
    ) -> Int[Array, " B"]:
        """Returns the maximum depth of each sentence's tokens."""
        logits = None
        if Need.SENTENCE_LOGITS in self.rule.needs:
            logits = self.model.sequence_logits(memory, mask)
        exit_at = jnp.full(len(memory), self.model.num_layers, jnp.int32)
        return jnp.minimum(exit_at, self.rule.before_sentence(Sentence(logits), exit_at))

    def before_token(
        self,
        ceilings: Int[Array, " B"],
        numbers: Int[Array, " B"],
        positions: Int[Array, " B"],
        limits: Int[Array, " B"],
        beam_size: int,
    ) -> Plan:
        """Plans for the newest tokens [B, J].

        Args:
            ceilings: the answers of `before_sentence`.
            numbers: the sentences' positions in the text.
            positions: the tokens' positions.
            limits: maximum tokens of each translation.
            beam_size: hypotheses per sentence, J.
        """
        shape = (len(ceilings), beam_size)
        carry = jnp.zeros((*shape, self.rule.carry_width), jnp.float32)
        plan = Plan(jnp.broadcast_to(ceilings[:, None], shape), carry)
        if self.rule.scope is not Scope.TOKEN:
            return plan
        return _forward(plan, self.rule.before_token(Token(numbers, positions, limits), plan))

    def nothing_found(self) -> Found | None:
        """Returns room for the next tokens of all rows, [R]; None if tokens are classified only at
        their exits."""
        return self.next_tokens.nothing() if self.classifies_each_block else None

    def after_block(
        self,
        depth: int,
        before: Float[Array, "C D"],
        after: Float[Array, "C D"],
        plan: Plan,
        found: Found | None,
    ) -> tuple[Plan, Found | None]:
        """Plans for tokens that block `depth` took from `before` to `after`, and classifies them if
        the rule looks at that.

        Returns:
            The plan, and the next tokens found at this depth or, without a classifier, None.
        """
        plan = self._after_block(depth, before, after, plan)
        if found is None:
            return plan, None
        logits, found = self.next_tokens.after_block(depth, after, found)
        top = self.next_tokens.best(found)
        depths = jnp.full_like(plan.exit_at, depth)
        seen = Classified(depths, logits, top.normaliser, top.logits, top.tokens)
        return _forward(plan, self.rule.after_classifier(seen, plan)), found

    def _after_block(
        self, depth: int, before: Float[Array, "C D"], after: Float[Array, "C D"], plan: Plan
    ) -> Plan:
        """Asks about the states; nothing after the last block, where all tokens exit."""
        if depth == self.model.num_layers or self.rule.scope is not Scope.TOKEN:
            return plan
        logits = None
        if Need.FIRST_STATE_LOGITS in self.rule.needs and depth == 1:
            logits = self.model.token_logits(after)
        elif Need.HALTING_LOGIT in self.rule.needs:
            logits = self.model.halting_logit(depth, after)
        seen = Block(jnp.full_like(plan.exit_at, depth), before, after, logits)
        return _forward(plan, self.rule.after_block(seen, plan))


def _forward(plan: Plan, answer: Plan) -> Plan:
    """Returns the answer, but with no exit later than planned."""
    return answer._replace(exit_at=jnp.minimum(plan.exit_at, answer.exit_at))
