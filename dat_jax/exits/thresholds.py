# SPDX-License-Identifier: Apache-2.0
"""Exit rules that compare a signal of a token with a threshold at each depth.

`dat_jax.tuning` records the signal of these rules and chooses the thresholds on validation data.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from dat_jax.config import ModelConfig
from dat_jax.exits.arguments import read_thresholds, write_thresholds
from dat_jax.exits.questions import Block, Classified, Need, Number, Plan, Rule
from dat_jax.types import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class Thresholded(Rule):
    """A token exits at the first depth where its signal is above the threshold.

    A signal is at most 1, so a threshold of 1 lets no token exit; one of 0 lets all exit.
    """

    thresholds: Number  # tau at depths `first` to N - 1, as a tuple; in a program one array

    argument = ":TAU"
    first: ClassVar[int] = 1
    """The lowest depth with a threshold; no token exits below it."""

    @staticmethod
    def signal(seen: Any) -> Array:
        """Returns the signal [*B] of tokens at a depth from what the rule sees there."""
        raise NotImplementedError

    @classmethod
    def fits(cls, config: ModelConfig) -> bool:
        return super().fits(config) and config.decoder_layers > cls.first

    @classmethod
    def parse(cls, argument: str, num_layers: int) -> "Thresholded":
        return cls(read_thresholds(argument, range(cls.first, num_layers)))

    def __str__(self) -> str:
        return f"{self.kind}:{write_thresholds(self.thresholds)}"

    def deepest(self, num_layers: int) -> int:
        for depth, tau in enumerate(self.thresholds, start=self.first):
            if tau <= 0:
                return depth
        return num_layers

    def exit_above(self, seen: Block | Classified, plan: Plan) -> Plan:
        """Plans the exit of the tokens whose signal is above the threshold."""
        thresholds = jnp.asarray(self.thresholds, jnp.float32)
        # Depths outside get the nearest threshold: N needs none, and those below `first` none yet.
        tau = thresholds.at[jnp.maximum(seen.depth - self.first, 0)].get(mode="clip")
        above = (self.signal(seen) > tau) | (tau <= 0)
        return plan.exit_where(above & (seen.depth >= self.first), seen.depth)


@dataclasses.dataclass(frozen=True)
class TokenGeometric(Thresholded):
    """A token exits after the first block whose halting probability is above its threshold.

    Paper, section 3.3, equation 12.
    """

    kind = exit_head = "token_geometric"
    argument = "[:TAU]"
    needs = frozenset({Need.HALTING_LOGIT})

    @classmethod
    def parse(cls, argument: str, num_layers: int) -> "Thresholded":
        return super().parse(argument or "0.5", num_layers)

    @staticmethod
    def signal(seen: Block) -> Float[Array, "*B"]:
        assert seen.logits is not None
        return jax.nn.sigmoid(seen.logits)

    def after_block(self, block: Block, plan: Plan) -> Plan:
        return self.exit_above(block, plan)


@dataclasses.dataclass(frozen=True)
class Confidence(Thresholded):
    """A token exits at the first depth where the probability of the likeliest token is above the
    threshold.

    Paper, section 3.3. Needs no exit head.
    """

    kind = "confidence"
    needs = frozenset({Need.CLASSIFIER})

    @staticmethod
    def signal(seen: Classified) -> Float[Array, "*B"]:
        return jnp.exp(jnp.max(seen.logits, axis=-1) - seen.normaliser)

    def after_classifier(self, classified: Classified, plan: Plan) -> Plan:
        return self.exit_above(classified, plan)


@dataclasses.dataclass(frozen=True)
class Margin(Thresholded):
    """A token exits at the first depth where the two likeliest tokens differ enough in probability.

    The softmax response of CALM (Schuster et al., 2022, section 3.5), of the tokens that may be
    generated.
    """

    kind = "margin"
    needs = frozenset({Need.CLASSIFIER})

    @staticmethod
    def signal(seen: Classified) -> Float[Array, "*B"]:
        likeliest = jnp.exp(seen.top_logits[..., :2] - seen.normaliser[..., None])
        return likeliest[..., 0] - likeliest[..., 1]

    def after_classifier(self, classified: Classified, plan: Plan) -> Plan:
        return self.exit_above(classified, plan)


@dataclasses.dataclass(frozen=True)
class Similarity(Thresholded):
    """A token exits at the first depth whose state has nearly the direction of the one below.

    The hidden-state saturation of CALM (Schuster et al., 2022, section 3.5): the cosine of the
    states after two successive blocks, so from depth 2 on. Needs neither head nor classifier.
    """

    kind = "similarity"
    first = 2

    @staticmethod
    def signal(seen: Block) -> Float[Array, "*B"]:
        before, after = seen.before.astype(jnp.float32), seen.after.astype(jnp.float32)
        product = jnp.sum(before * after, axis=-1)
        norms = jnp.linalg.norm(before, axis=-1) * jnp.linalg.norm(after, axis=-1)
        return jnp.minimum(product / jnp.maximum(norms, jnp.finfo(jnp.float32).tiny), 1.0)

    def own_flops(self, config: ModelConfig, exits: Int[np.ndarray, " T"]) -> int:
        highest = self.deepest(config.decoder_layers) - 1  # the last block is not asked about
        asked = np.clip(exits, 1, max(highest, 1)) - 1
        return int(np.sum(asked)) * 3 * 2 * config.decoder_dim  # the product, and two norms

    def after_block(self, block: Block, plan: Plan) -> Plan:
        return self.exit_above(block, plan)
