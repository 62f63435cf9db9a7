# SPDX-License-Identifier: Apache-2.0
"""Exit rules: they decide when a token exits the decoder (paper, section 3).

To add a rule, subclass `Rule` here, override the questions that it answers, and add it to `RULES`.
The engine knows no rule by name. Rules that compare a signal with thresholds are next door.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp

from dat_jax.config import ModelConfig
from dat_jax.exits.arguments import read_count, read_depth, read_falling_depths, read_seed
from dat_jax.exits.questions import (
    Block,
    Classified,
    Need,
    Number,
    Plan,
    Rule,
    Scope,
    Sentence,
    Token,
)
from dat_jax.exits.sampling import token_draws
from dat_jax.exits.thresholds import Confidence, Margin, Similarity, TokenGeometric
from dat_jax.types import Array, Int


@dataclasses.dataclass(frozen=True)
class Fixed(Rule):
    """Every token exits at the same depth."""

    depth: Number

    kind = "fixed"
    argument = "[:DEPTH]"
    scope = Scope.TEXT

    @classmethod
    def fits(cls, config: ModelConfig) -> bool:
        return True

    @classmethod
    def parse(cls, argument: str, num_layers: int) -> "Fixed":
        return cls(read_depth(argument, num_layers))

    def __str__(self) -> str:
        return f"fixed:{self.depth}"

    def deepest(self, num_layers: int) -> int:
        return int(self.depth)

    def before_sentence(self, sentence: Sentence, exit_at: Int[Array, " B"]) -> Int[Array, " B"]:
        return jnp.full_like(exit_at, self.depth)


@dataclasses.dataclass(frozen=True)
class Uniform(Rule):
    """Each token exits at a depth drawn uniformly from 1 to N (paper, section 4.1)."""

    num_layers: Number
    seed: Number

    kind = "uniform"
    argument = "[:SEED]"

    @classmethod
    def parse(cls, argument: str, num_layers: int) -> "Uniform":
        return cls(num_layers, read_seed(argument))

    def __str__(self) -> str:
        return f"uniform:{self.seed}"

    def before_token(self, token: Token, plan: Plan) -> Plan:
        beams = plan.exit_at.shape[1]
        draws = token_draws(self.seed, token.number, token.position, beams)
        depth = 1 + jnp.floor(draws * self.num_layers).astype(jnp.int32)
        return plan._replace(exit_at=depth)


@dataclasses.dataclass(frozen=True)
class Schedule(Rule):
    """Depth falls with the position: from `first` at the first token to `last` at the length limit.

    After SkipDecode (Del Corro et al., 2023). It falls linearly, rounded to the nearest depth, and
    halves to the deeper one. No token exits deeper than an earlier one, so none attends to a copied
    state.
    """

    first: Number
    last: Number

    kind = "schedule"
    argument = ":FIRST-LAST"
    deepens = False

    @classmethod
    def parse(cls, argument: str, num_layers: int) -> "Schedule":
        return cls(*read_falling_depths(argument, num_layers))

    @classmethod
    def choices(cls, num_layers: int) -> Sequence[Rule]:
        depths = range(1, num_layers + 1)
        return [cls(first, last) for first in depths for last in depths[:first]]

    def __str__(self) -> str:
        return f"schedule:{self.first}-{self.last}"

    def deepest(self, num_layers: int) -> int:
        return int(self.first)

    def before_token(self, token: Token, plan: Plan) -> Plan:
        # Integers, so that a position always rounds the same way.
        steps = jnp.maximum(token.limit - 1, 1)
        fallen = (2 * (self.first - self.last) * token.position + steps - 1) // (2 * steps)
        depth = jnp.broadcast_to((self.first - fallen)[:, None], plan.exit_at.shape)
        return plan._replace(exit_at=depth)


@dataclasses.dataclass(frozen=True)
class SequenceMultinomial(Rule):
    """All tokens of a sentence exit at the depth likeliest by the exit head (equation 8)."""

    kind = exit_head = "sequence_multinomial"
    needs = frozenset({Need.SENTENCE_LOGITS})
    scope = Scope.SENTENCE

    def before_sentence(self, sentence: Sentence, exit_at: Int[Array, " B"]) -> Int[Array, " B"]:
        assert sentence.logits is not None
        return 1 + jnp.argmax(sentence.logits, axis=-1)


@dataclasses.dataclass(frozen=True)
class TokenMultinomial(Rule):
    """Each token exits at the depth likeliest by the exit head after block 1 (equation 11)."""

    kind = exit_head = "token_multinomial"
    needs = frozenset({Need.FIRST_STATE_LOGITS})

    def after_block(self, block: Block, plan: Plan) -> Plan:
        if block.logits is None:  # after block 1 the plan is final
            return plan
        return plan._replace(exit_at=1 + jnp.argmax(block.logits, axis=-1))


@dataclasses.dataclass(frozen=True)
class Patience(Rule):
    """A token exits once this many exits in a row find the same token likeliest.

    PABEE (Zhou et al., 2020), whose patience counts the repetitions: one less. Of the tokens that
    may be generated. Needs no exit head.
    """

    exits: Number

    kind = "patience"
    argument = ":K"
    needs = frozenset({Need.CLASSIFIER})
    carry_width = 2  # the likeliest token of the exit below, plus 1; the exits that agreed on it

    @classmethod
    def parse(cls, argument: str, num_layers: int) -> "Patience":
        return cls(read_count(argument, num_layers))

    @classmethod
    def choices(cls, num_layers: int) -> Sequence[Rule]:
        return [cls(exits) for exits in range(1, num_layers + 1)]

    def __str__(self) -> str:
        return f"patience:{self.exits}"

    def deepest(self, num_layers: int) -> int:
        return 1 if self.exits <= 1 else num_layers

    def after_classifier(self, classified: Classified, plan: Plan) -> Plan:
        likeliest = 1.0 + classified.top_tokens[..., 0]
        below, agreed = plan.carry[..., 0], plan.carry[..., 1]
        agreed = jnp.where(likeliest == below, agreed, 0.0) + 1.0
        plan = plan._replace(carry=jnp.stack([likeliest, agreed], axis=-1))
        return plan.exit_where(agreed >= self.exits, classified.depth)


RULES: tuple[type[Rule], ...] = (
    Fixed,
    Uniform,
    Schedule,
    SequenceMultinomial,
    TokenMultinomial,
    TokenGeometric,
    Confidence,
    Margin,
    Similarity,
    Patience,
)
"""All rules that `--config.policy` can name, the simplest first."""
