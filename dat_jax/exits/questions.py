# SPDX-License-Identifier: Apache-2.0
"""The four questions about when a token exits: what a rule sees of each, and what it answers.

Whoever decodes asks a rule about each token: before its sentence, before the token itself, after
each block but the last, and after a classifier. Every answer is a plan: the depth to exit at, N
while that is unknown, and whatever the rule wants to remember until the token has left. A token
leaves as soon as its depth reaches what is planned.
"""

import dataclasses
import enum
from collections.abc import Set
from typing import Any, ClassVar, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from dat_jax.config import ModelConfig
from dat_jax.types import Array, Bool, Int


class Need(enum.Enum):
    """Computations that are made for a rule alone; `dat_jax.flops` says what each costs."""

    SENTENCE_LOGITS = "the exit head's logits from the memory"
    FIRST_STATE_LOGITS = "the exit head's logits from the state after block 1"
    HALTING_LOGIT = "the exit head's logit from the state after each block but the last"
    CLASSIFIER = "the next token's logits after each block"


class Scope(enum.Enum):
    """The tokens for which a rule decides at once."""

    TEXT = "all tokens exit at one depth"
    SENTENCE = "all tokens of a sentence exit at one depth: none attends to a copied state"
    TOKEN = "each token exits at a depth of its own"


class Plan(NamedTuple):
    """All that is known of the depths at which tokens exit."""

    exit_at: jax.Array  # [*B] the depth; N while it is unknown
    carry: jax.Array  # [*B, W] what the rule remembers of a token, float32; 0 before the token

    def exit_where(self, halts: Bool[Array, "*#B"], depth: Int[Array, "*B"]) -> "Plan":
        """Lets tokens exit at `depth` where `halts` is true."""
        return self._replace(exit_at=jnp.where(halts, depth, self.exit_at))


class Sentence(NamedTuple):
    """All that a rule sees before a sentence."""

    logits: jax.Array | None  # [B, N] if it needs SENTENCE_LOGITS


class Token(NamedTuple):
    """All that a rule sees before a token of each of J hypotheses of B sentences."""

    number: jax.Array  # [B] of the sentence in the text, from 0
    position: jax.Array  # [B] of the token in its sentence, from 0
    limit: jax.Array  # [B] the most tokens that a translation may have


class Block(NamedTuple):
    """All that a rule sees after a block."""

    depth: jax.Array  # [*B]
    before: jax.Array  # [*B, D] the states that went into it
    after: jax.Array  # [*B, D]
    logits: jax.Array | None  # [*B, N] or [*B] if it needs FIRST_STATE_LOGITS or HALTING_LOGIT


class Classified(NamedTuple):
    """All that a rule that needs CLASSIFIER sees after one, before any token is ruled out."""

    depth: jax.Array  # [*B]
    logits: jax.Array  # [*B, V] of the next token, or [*B, K] of the tokens of its shortlist
    normaliser: jax.Array  # [*B] their logsumexp
    top_logits: jax.Array  # [*B, top] the greatest that may be written, best first
    top_tokens: jax.Array  # [*B, top]


class Rule:
    """Base of all rules: answers every question with the plan as it is, so all tokens exit at N.

    Rules are frozen dataclasses. As pytrees their numbers are leaves, a tuple of them one array: a
    compiled decoder serves all rules of a class.
    """

    kind: ClassVar[str] = ""
    """The name in `--config.policy`."""
    argument: ClassVar[str] = ""
    """The form of what follows it: "", ":TAU" or, if it may be left out, "[:TAU]"."""
    exit_head: ClassVar[str | None] = None
    """The `model.exit_head` that a model must have for it, if any."""
    needs: ClassVar[Set[Need]] = frozenset()
    scope: ClassVar[Scope] = Scope.TOKEN
    carry_width: ClassVar[int] = 0
    """Numbers that it remembers of a token, W of `Plan.carry`."""

    def __init_subclass__(cls) -> None:
        # `jax.tree_util.register_dataclass` would let the structures of two classes with equal
        # fields be equal (jaxlib 0.10.2): `jit` would now and then run one's program for the other.
        jax.tree_util.register_pytree_node(
            cls, lambda rule: (_leaves(rule), None), lambda _, values: cls(*values)
        )

    @property
    def classifies_each_block(self) -> bool:
        """True if a classifier runs after each block, and not only where a token exits."""
        return Need.CLASSIFIER in self.needs and self.scope is Scope.TOKEN

    @classmethod
    def form(cls) -> str:
        """Returns the form in which `--config.policy` asks for it."""
        return cls.kind + cls.argument

    @classmethod
    def fits(cls, config: ModelConfig) -> bool:
        """True if a model can decode by it: it has a choice of exits, and the head."""
        return len(config.exit_depths) > 1 and cls.exit_head in (None, config.exit_head)

    @classmethod
    def read(cls, argument: str, config: ModelConfig) -> "Rule":
        """Makes the rule of what follows its name.

        Raises:
            UserError: it cannot be read, or does not suit the model.
        """
        return cls()

    def __str__(self) -> str:
        return self.kind

    def deepest(self, num_layers: int) -> int:
        """Returns the depth that no token goes above, known from the rule's numbers alone: the
        decoder is compiled without the blocks above it."""
        return num_layers

    def before_sentence(self, sentence: Sentence, exit_at: Int[Array, " B"]) -> Int[Array, " B"]:
        """Returns the depth above which no token of each sentence goes."""
        return exit_at

    def before_token(self, token: Token, plan: Plan) -> Plan:
        """Plans for the newest tokens [B, J]."""
        return plan

    def after_block(self, block: Block, plan: Plan) -> Plan:
        """Plans for tokens that have run a block and are not at N."""
        return plan

    def after_classifier(self, classified: Classified, plan: Plan) -> Plan:
        """Plans for tokens whose states have been classified; asked if it needs CLASSIFIER."""
        return plan


def _leaves(rule: Rule) -> tuple[Any, ...]:
    values = (getattr(rule, field.name) for field in dataclasses.fields(cast(Any, rule)))
    return tuple(np.float32(value) if isinstance(value, tuple) else value for value in values)
