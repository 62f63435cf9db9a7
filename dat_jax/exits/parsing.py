# SPDX-License-Identifier: Apache-2.0
"""Policies: exit rules, each with the one line of text that asks for it."""

from typing import NamedTuple

from dat_jax.config import ModelConfig
from dat_jax.errors import UserError
from dat_jax.exits.questions import Rule
from dat_jax.exits.rules import RULES


class Policy(NamedTuple):
    """A rule with the name that it was asked for by: its own in full or, tuned, the tuning's."""

    name: str
    rule: Rule

    @classmethod
    def of(cls, rule: Rule) -> "Policy":
        """Returns the policy of a rule that is asked for by its own name."""
        return cls(str(rule), rule)


def parse_policy(text: str, config: ModelConfig) -> Policy:
    """Reads a policy: the name of a rule of `dat_jax.exits.rules.RULES` and what follows it.

    Raises:
        UserError: there is no such rule, its argument cannot be read, or the model of `config` has
            not what it needs.
    """
    kind, colon, argument = text.partition(":")
    named = {rule.kind: rule for rule in RULES}
    if kind not in named:
        forms = ", ".join(rule.form() for rule in RULES)
        raise UserError(f"policy is {text!r}: must be one of {forms}")
    rule, available = named[kind], available_rules(config)
    if rule not in available:
        raise UserError(
            f"policy is {text!r}: this model has no exit head or exits for it; it can decode with "
            + ", ".join(rule.form() for rule in available)
        )
    if (colon and not rule.argument) or (not argument and (colon or rule.argument.startswith(":"))):
        raise UserError(f"policy is {text!r}: must read {rule.form()}")
    try:
        return Policy.of(rule.read(argument, config))
    except UserError as error:
        raise UserError(f"policy is {text!r}: {error}") from None


def available_rules(config: ModelConfig) -> list[type[Rule]]:
    """The rules that a model can decode by, the plainest first."""
    return [rule for rule in RULES if rule.fits(config)]
