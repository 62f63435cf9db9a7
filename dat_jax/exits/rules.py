# SPDX-License-Identifier: Apache-2.0
"""Exit rules: they decide when a token exits the decoder (paper, section 3).

To add a rule, subclass `Rule` here, override the questions that it answers, and add it to `RULES`.
The engine knows no rule by name.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dat_jax.config import ModelConfig
from dat_jax.exits.arguments import read_depth, read_seed, read_thresholds, write_thresholds
from dat_jax.exits.questions import Block, Classified, Need, Plan, Rule, Scope, Sentence, Token
from dat_jax.exits.sampling import token_draws
from dat_jax.types import Array, Int


@dataclasses.dataclass(frozen=True)
class Fixed(Rule):
    """Every token exits at the same depth."""

    depth: Any

    kind = "fixed"
    argument = "[:DEPTH]"
    scope = Scope.TEXT

    @classmethod
    def fits(cls, config: ModelConfig) -> bool:
        return True

    @classmethod
    def read(cls, argument: str, config: ModelConfig) -> "Rule":
        return cls(read_depth(argument, config.exit_depths))

    def __str__(self) -> str:
        return f"fixed:{self.depth}"

    def deepest(self, num_layers: int) -> int:
        return int(self.depth)

    def before_sentence(self, sentence: Sentence, exit_at: Int[Array, " B"]) -> Int[Array, " B"]:
        return jnp.full_like(exit_at, self.depth)


@dataclasses.dataclass(frozen=True)
class Uniform(Rule):
    """Each token exits at a depth drawn uniformly from 1 to N (paper, section 4.1)."""

    num_layers: Any
    seed: Any

    kind = "uniform"
    argument = "[:SEED]"

    @classmethod
    def read(cls, argument: str, config: ModelConfig) -> "Rule":
        return cls(config.decoder_layers, read_seed(argument))

    def __str__(self) -> str:
        return f"uniform:{self.seed}"

    def before_token(self, token: Token, plan: Plan) -> Plan:
        beams = plan.exit_at.shape[1]
        draws = token_draws(self.seed, token.number, token.position, beams)
        depth = 1 + jnp.floor(draws * self.num_layers).astype(jnp.int32)
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
class TokenGeometric(Rule):
    """A token exits after the first block whose halting probability is above its threshold.

    Paper, section 3.3, equation 12.
    """

    thresholds: Any  # tau at depths 1 to N - 1: a tuple of numbers; as a pytree leaf, an array

    kind = exit_head = "token_geometric"
    argument = "[:TAU]"
    needs = frozenset({Need.HALTING_LOGIT})

    @classmethod
    def read(cls, argument: str, config: ModelConfig) -> "Rule":
        return cls(read_thresholds(argument or "0.5", config.decoder_layers - 1))

    def __str__(self) -> str:
        return f"token_geometric:{write_thresholds(self.thresholds)}"

    def deepest(self, num_layers: int) -> int:
        return _first_depth_for_all(self.thresholds)

    def after_block(self, block: Block, plan: Plan) -> Plan:
        assert block.logits is not None
        halts = jax.nn.sigmoid(block.logits) > _at(self.thresholds, block.depth)
        return plan.exit_where(halts, block.depth)


@dataclasses.dataclass(frozen=True)
class Confidence(Rule):
    """A token exits at the first depth where the probability of the likeliest token is above the
    threshold.

    Paper, section 3.3. Needs no exit head.
    """

    thresholds: Any  # tau at depths 1 to N - 1: a tuple of numbers; as a pytree leaf, an array

    kind = "confidence"
    argument = ":TAU"
    needs = frozenset({Need.CLASSIFIER})

    @classmethod
    def read(cls, argument: str, config: ModelConfig) -> "Rule":
        return cls(read_thresholds(argument, config.decoder_layers - 1))

    def __str__(self) -> str:
        return f"confidence:{write_thresholds(self.thresholds)}"

    def deepest(self, num_layers: int) -> int:
        return _first_depth_for_all(self.thresholds)

    def after_classifier(self, classified: Classified, plan: Plan) -> Plan:
        confidence = jnp.exp(jnp.max(classified.logits, axis=-1) - classified.normaliser)
        halts = confidence > _at(self.thresholds, classified.depth)
        return plan.exit_where(halts, classified.depth)


def _first_depth_for_all(thresholds: tuple[float, ...]) -> int:
    """The first depth whose threshold every probability exceeds: 0 or less; N if there is none."""
    return next((n for n, tau in enumerate(thresholds, start=1) if tau <= 0), len(thresholds) + 1)


def _at(thresholds: Any, depth: Int[Array, "*B"]) -> Array:
    """Returns the threshold of each depth; N, which needs none, gets that of N - 1."""
    return jnp.asarray(thresholds, jnp.float32).at[depth - 1].get(mode="clip")


RULES: tuple[type[Rule], ...] = (
    Fixed,
    Uniform,
    SequenceMultinomial,
    TokenMultinomial,
    TokenGeometric,
    Confidence,
)
"""All rules that `--config.policy` can name, the simplest first."""
