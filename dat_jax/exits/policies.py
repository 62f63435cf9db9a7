# SPDX-License-Identifier: Apache-2.0
"""Exit policies: when a token leaves the decoder. One line of text names each.

A policy has one method, `halts(depth, signal)`: does a token exit after block `depth`, given the
signal that the policy says it looks at? Whoever decodes computes that signal and no other, and asks
after each block but the last, at which everybody exits. Policies are pytrees whose numbers are
leaves: a compiled decoder serves all policies of a kind.
"""

import dataclasses
import enum
from typing import Any, ClassVar, TypeVar, cast

import jax
import jax.numpy as jnp

from dat_jax.config import ModelConfig
from dat_jax.errors import UserError
from dat_jax.types import Array, Bool, Float, Int

_T = TypeVar("_T")


class Signal(enum.Enum):
    """What a policy looks at. `*B` are the axes of whatever tokens are decoded together."""

    NOTHING = "nothing"  # any array: the depth is given
    DRAW = "draw"  # [*B] a number drawn uniformly from [0, 1) for the token
    SENTENCE = "sentence"  # [*B, N] the exit head's logits from the encoder's output
    FIRST_STATE = "first state"  # [*B, N] the exit head's logits from the state after block 1
    HALTING_UNIT = "halting unit"  # [*B] the exit head's logit from the state after this block
    CLASSIFIER = "classifier"  # [*B] the probability of the likeliest next token after this block

    @property
    def is_of_the_sentence(self) -> bool:
        """Whether all tokens of a sentence get one depth: none attends to a copied state."""
        return self in (Signal.NOTHING, Signal.SENTENCE)

    @property
    def is_ahead(self) -> bool:
        """Whether the depth is known before block 1."""
        return self.is_of_the_sentence or self is Signal.DRAW


def register_policy(policy: type[_T]) -> type[_T]:
    """Registers a policy whose fields are leaves.

    `jax.tree_util.register_dataclass` would let the structures of two classes with equal fields be
    equal (jaxlib 0.10.2): `jit` would now and then run one's program for the other.
    """
    names = [field.name for field in dataclasses.fields(cast(Any, policy))]
    jax.tree_util.register_pytree_node(
        policy,
        lambda one: (tuple(getattr(one, name) for name in names), None),
        lambda _, values: policy(*values),
    )
    return policy


@register_policy
@dataclasses.dataclass(frozen=True)
class Fixed:
    """Every token exits at the same depth."""

    depth: Any

    signal: ClassVar[Signal] = Signal.NOTHING

    def __str__(self) -> str:
        return f"fixed:{self.depth}"

    def halts(self, depth: int, signal: Array) -> Bool[Array, ""]:
        """Whether this is the depth, or above it."""
        return jnp.asarray(depth >= self.depth)


@register_policy
@dataclasses.dataclass(frozen=True)
class Uniform:
    """Each token exits at a depth drawn uniformly (paper, section 4.1)."""

    num_layers: Any
    seed: Any

    signal: ClassVar[Signal] = Signal.DRAW

    def __str__(self) -> str:
        return f"uniform:{self.seed}"

    def halts(self, depth: int, signal: Float[Array, "*B"]) -> Bool[Array, "*B"]:
        """Whether the draw is among the first `depth` of N equal parts of [0, 1)."""
        return signal * self.num_layers < depth


@register_policy
@dataclasses.dataclass(frozen=True)
class SequenceMultinomial:
    """All tokens of a sentence exit at the depth that its exit head finds likeliest (eq. 8)."""

    signal: ClassVar[Signal] = Signal.SENTENCE

    def __str__(self) -> str:
        return "sequence_multinomial"

    def halts(self, depth: int, signal: Float[Array, "*B N"]) -> Bool[Array, "*B"]:
        """Whether the likeliest depth is reached."""
        return depth > jnp.argmax(signal, axis=-1)


@register_policy
@dataclasses.dataclass(frozen=True)
class TokenMultinomial:
    """Each token exits at the depth that its exit head finds likeliest after block 1 (eq. 11)."""

    signal: ClassVar[Signal] = Signal.FIRST_STATE

    def __str__(self) -> str:
        return "token_multinomial"

    def halts(self, depth: int, signal: Float[Array, "*B N"]) -> Bool[Array, "*B"]:
        """Whether the likeliest depth is reached."""
        return depth > jnp.argmax(signal, axis=-1)


@register_policy
@dataclasses.dataclass(frozen=True)
class TokenGeometric:
    """A token exits after the first block whose halting probability is above that block's tau.

    Paper, section 3.3, equation 12.
    """

    thresholds: tuple[Any, ...]  # tau of depths 1 to N - 1

    signal: ClassVar[Signal] = Signal.HALTING_UNIT

    def __str__(self) -> str:
        return f"token_geometric:{_describe(self.thresholds)}"

    def halts(self, depth: int, signal: Float[Array, "*B"]) -> Bool[Array, "*B"]:
        """Whether the halting probability is above tau."""
        return jax.nn.sigmoid(signal) > self.thresholds[depth - 1]


@register_policy
@dataclasses.dataclass(frozen=True)
class Confidence:
    """A token exits at the first exit whose likeliest token is likelier than that depth's tau.

    Paper, section 3.3; it needs no training beside that of the exits.
    """

    thresholds: tuple[Any, ...]  # tau of depths 1 to N - 1

    signal: ClassVar[Signal] = Signal.CLASSIFIER

    def __str__(self) -> str:
        return f"confidence:{_describe(self.thresholds)}"

    def halts(self, depth: int, signal: Float[Array, "*B"]) -> Bool[Array, "*B"]:
        """Whether the probability is above tau."""
        return signal > self.thresholds[depth - 1]


def exit_depth(policy: "Policy", signal: Array, num_layers: int) -> Int[Array, "*B"]:
    """The depth that a policy exits at, if its signal is the same at every depth."""
    halts = [policy.halts(depth, signal) for depth in range(1, num_layers)]
    below = [jnp.cumprod(~jnp.stack(halts), axis=0).sum(axis=0)] if halts else [0]
    return 1 + jnp.asarray(below[0], jnp.int32)


Policy = Fixed | Uniform | SequenceMultinomial | TokenMultinomial | TokenGeometric | Confidence

_FORMS = {
    "fixed": "fixed[:DEPTH]",
    "uniform": "uniform[:SEED]",
    "sequence_multinomial": "sequence_multinomial",
    "token_multinomial": "token_multinomial",
    "token_geometric": "token_geometric[:TAU]",
    "confidence": "confidence:TAU",
}


def parse_policy(text: str, config: ModelConfig) -> Policy:
    """Reads one of `fixed[:DEPTH]` (by default the greatest), `uniform[:SEED]`,
    `sequence_multinomial`, `token_multinomial`, `token_geometric[:TAU]` (by default 0.5) and
    `confidence:TAU`, where TAU is one number for all depths or N - 1 with commas between.

    Raises:
        UserError: there is no such policy, or the model of `config` has not what it needs.
    """
    kind, colon, argument = text.partition(":")
    if kind not in _FORMS:
        raise UserError(f"policy is {text!r}: must be one of {', '.join(_FORMS.values())}")
    available = available_kinds(config)
    if kind not in available:
        raise UserError(
            f"policy is {text!r}: this model has no exit head or exits for it; it can decode with "
            + ", ".join(_FORMS[name] for name in available)
        )
    if colon and (not argument or ":" not in _FORMS[kind]):
        raise UserError(f"policy is {text!r}: must read {_FORMS[kind]}")
    if kind == "fixed":
        return _fixed(text, argument, config.exit_depths)
    if kind == "uniform":
        return Uniform(config.num_layers, _seed(text, argument))
    if kind == "sequence_multinomial":
        return SequenceMultinomial()
    if kind == "token_multinomial":
        return TokenMultinomial()
    if kind == "token_geometric":
        return TokenGeometric(_thresholds(text, argument or "0.5", config.num_layers))
    return Confidence(_thresholds(text, argument, config.num_layers))


def available_kinds(config: ModelConfig) -> list[str]:
    """The kinds of policy that a model can decode with, the plainest first."""
    if len(config.exit_depths) == 1:
        return ["fixed"]
    heads = [] if config.exit_head == "none" else [config.exit_head]
    return ["fixed", "uniform", *heads, "confidence"]


def _fixed(text: str, argument: str, exit_depths: tuple[int, ...]) -> Fixed:
    if not argument:
        return Fixed(exit_depths[-1])
    if not argument.isdecimal() or int(argument) not in exit_depths:
        depths = ", ".join(map(str, exit_depths))
        raise UserError(f"policy is {text!r}: the model has exits at depth {depths}")
    return Fixed(int(argument))


def _seed(text: str, argument: str) -> int:
    if not (argument or "0").isdecimal() or int(argument or 0) >= 2**31:
        raise UserError(f"policy is {text!r}: the seed must be a whole number from 0 to 2^31 - 1")
    return int(argument or 0)


def _thresholds(text: str, argument: str, num_layers: int) -> tuple[float, ...]:
    """One threshold for each depth but the last, from as many numbers or from one."""
    try:
        values = tuple(float(part) for part in argument.split(","))
    except ValueError:
        raise UserError(
            f"policy is {text!r}: thresholds must be numbers with commas between them"
        ) from None
    if not all(0 <= value <= 1 for value in values):
        raise UserError(f"policy is {text!r}: thresholds must be in [0, 1]")
    depths = num_layers - 1
    if len(values) not in (1, depths):
        wanted = f"1 threshold, or {depths}, one for each depth but the last"
        raise UserError(f"policy is {text!r}: needs {wanted}, not {len(values)}")
    return values * depths if len(values) == 1 else values


def _describe(thresholds: tuple[float, ...]) -> str:
    """The shortest text that `_thresholds` reads as the same numbers."""
    different = dict.fromkeys(thresholds)
    return ",".join(str(x) for x in (different if len(different) == 1 else thresholds))
