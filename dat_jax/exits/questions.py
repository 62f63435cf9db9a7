# SPDX-License-Identifier: Apache-2.0
"""The four questions that decoding asks an exit rule, with their inputs and answers.

Decoding asks before each sentence, before each token, after each block except the last, and after a
classifier. Each answer is a plan: the depth to exit at, N while it is unknown, and what the rule
remembers until the token has exited. A token exits once its depth reaches the planned one.
"""

import dataclasses
import enum
from collections.abc import Sequence, Set
from typing import Any, ClassVar, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from dat_jax.config import ModelConfig
from dat_jax.types import Array, Bool, Int

Number = Any
"""A field of a rule: a number of Python, an array in a compiled program, and whatever JAX puts
into its place on the way, such as a shape."""


class Need(enum.Enum):
    """Computations made only for a rule; `dat_jax.flops` has the cost of each."""

    SENTENCE_LOGITS = "the exit head's logits from the memory"
    FIRST_STATE_LOGITS = "the exit head's logits from the state after block 1"
    HALTING_LOGIT = "the exit head's logit from the state after each block but the last"
    CLASSIFIER = "the next token's logits after each block"


class Scope(enum.Enum):
    """The tokens that share one exit depth."""

    TEXT = "all tokens exit at one depth"
    SENTENCE = "all tokens of a sentence exit at one depth: none attends to a copied state"
    TOKEN = "each token exits at its own depth"


class Plan(NamedTuple):
    """The planned exits of tokens, and the rule's memory."""

    exit_at: jax.Array  # [*B] the exit depth; N while it is unknown
    carry: jax.Array  # [*B, W] float32, what the rule remembers of a token; 0 before the token

    def exit_where(self, halts: Bool[Array, "*#B"], depth: Int[Array, "*B"]) -> "Plan":
        """Plans to exit at `depth` where `halts` is true."""
        return self._replace(exit_at=jnp.where(halts, depth, self.exit_at))


class Sentence(NamedTuple):
    """Input of a rule before a sentence."""

    logits: jax.Array | None  # [B, N] if the rule needs SENTENCE_LOGITS


class Token(NamedTuple):
    """Input of a rule before a token of each of J hypotheses of B sentences."""

    number: jax.Array  # [B] index of the sentence in the text, from 0
    position: jax.Array  # [B] position of the token in its sentence, from 0
    limit: jax.Array  # [B] maximum number of tokens of the translation


class Block(NamedTuple):
    """Input of a rule after a block."""

    depth: jax.Array  # [*B]
    before: jax.Array  # [*B, D] the block's input states
    after: jax.Array  # [*B, D] its output states
    # [*B, N] if the rule needs FIRST_STATE_LOGITS, [*B] if it needs HALTING_LOGIT
    logits: jax.Array | None


class Classified(NamedTuple):
    """Input of a rule that needs CLASSIFIER after a classifier, before tokens are masked."""

    depth: jax.Array  # [*B]
    logits: jax.Array  # [*B, V] of the next token, or [*B, shortlist] of these
    normaliser: jax.Array  # [*B] their logsumexp
    top_logits: jax.Array  # [*B, top] the largest of tokens that may be generated, best first
    top_tokens: jax.Array  # [*B, top]


class Rule:
    """Base of all rules: leaves every plan unchanged, so all tokens exit at N.

    Rules are frozen dataclasses and pytrees. Their numbers are leaves (a tuple of numbers is one
    array), so one compiled decoder serves all rules of a class.
    """

    kind: ClassVar[str] = ""
    """The name in `--config.policy`; a rule from a user's file needs none."""
    argument: ClassVar[str] = ""
    """The form of the argument after the name: "", ":TAU" or, if optional, "[:TAU]"."""
    exit_head: ClassVar[str | None] = None
    """The `model.exit_head` that the rule needs, if any."""
    needs: ClassVar[Set[Need]] = frozenset()
    scope: ClassVar[Scope] = Scope.TOKEN
    deepens: ClassVar[bool] = True
    """True if a token may exit deeper than an earlier one of its sentence. Only then does any token
    attend to a copied state; of no use where tokens share one depth."""
    carry_width: ClassVar[int] = 0
    """Numbers that the rule remembers of a token, W of `Plan.carry`."""

    def __init_subclass__(cls) -> None:
        # With `jax.tree_util.register_dataclass`, the structures of two classes with equal fields
        # compare equal (jaxlib 0.10.2), and `jit` may run one class's program for the other.
        jax.tree_util.register_pytree_node(
            cls, lambda rule: (_leaves(rule), None), lambda _, values: cls(*values)
        )

    @property
    def classifies_each_block(self) -> bool:
        """True if a classifier runs after each block, and not only where a token exits."""
        return Need.CLASSIFIER in self.needs and self.scope is Scope.TOKEN

    @property
    def copies_states(self) -> bool:
        """True if tokens may attend to copied states of earlier tokens."""
        return self.deepens and self.scope is Scope.TOKEN

    @classmethod
    def form(cls) -> str:
        """Returns the form of the rule in `--config.policy`."""
        return cls.kind + cls.argument

    @classmethod
    def fits(cls, config: ModelConfig) -> bool:
        """Returns whether a model can decode with the rule: it has several exits, and the head."""
        return len(config.exit_depths) > 1 and cls.exit_head in (None, config.exit_head)

    @classmethod
    def parse(cls, argument: str, num_layers: int) -> "Rule":
        """Builds the rule for a decoder of N blocks from the argument after its name.

        Raises:
            UserError: the argument is invalid.
        """
        return cls()

    @classmethod
    def choices(cls, num_layers: int) -> "Sequence[Rule]":
        """Returns the rules of this class that tuning decodes with, if they can be listed."""
        return ()

    def __str__(self) -> str:
        return self.kind or repr(self)

    def deepest(self, num_layers: int) -> int:
        """Returns the depth that no token goes above, known from the rule's numbers alone: the
        decoder is compiled without the blocks above it."""
        return num_layers

    def own_flops(self, config: ModelConfig, exits: Int[np.ndarray, " T"]) -> int:
        """Returns the FLOPs of the rule's own products for tokens that exit at these depths; what
        it `needs` is counted elsewhere."""
        return 0

    def before_sentence(self, sentence: Sentence, exit_at: Int[Array, " B"]) -> Int[Array, " B"]:
        """Returns the largest depth for the tokens of each sentence."""
        return exit_at

    def before_token(self, token: Token, plan: Plan) -> Plan:
        """Plans for the newest tokens [B, J]."""
        return plan

    def after_block(self, block: Block, plan: Plan) -> Plan:
        """Plans for tokens that have run a block below N."""
        return plan

    def after_classifier(self, classified: Classified, plan: Plan) -> Plan:
        """Plans for tokens whose states have been classified; needs CLASSIFIER."""
        return plan


def as_arrays(rule: Rule) -> Rule:
    """Returns the rule with its numbers as arrays, of the dtypes that they have in a program."""
    return jax.tree.map(_as_array, rule)


def _as_array(number: Any) -> np.ndarray:
    return np.asarray(number, np.int32 if isinstance(number, int) else np.float32)


def _leaves(rule: Rule) -> tuple[Any, ...]:
    values = (getattr(rule, field.name) for field in dataclasses.fields(cast(Any, rule)))
    return tuple(np.float32(value) if isinstance(value, tuple) else value for value in values)
