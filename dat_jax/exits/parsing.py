# SPDX-License-Identifier: Apache-2.0
"""Policies: exit rules with their one-line names."""

import re
from pathlib import Path
from typing import NamedTuple

from dat_jax.config import ModelConfig
from dat_jax.errors import UserError
from dat_jax.exits.questions import Rule
from dat_jax.exits.rules import RULES

FILE_FORM = "FILE.py:CLASS[:ARGUMENT]"
"""The form of a policy whose rule is in a user's file."""

_FILE = re.compile(r"(?P<file>.+?\.py)(:(?P<name>[^:]*)(:(?P<argument>.*))?)?", re.DOTALL)


class Policy(NamedTuple):
    """A rule with its name: the rule's own, or the user's text if it is tuned or from a file."""

    name: str
    rule: Rule
    sha256: str = ""  # of the file that the rule is from, if it is from one

    @property
    def label(self) -> str:
        """The name in requests and in names of folders. For a rule from a file, this is its stem,
        class and argument and a part of the checksum: another version of the file has another."""
        place = FilePlace.of(self.name) if self.sha256 else None
        if place is None:
            return self.name
        argument = f":{place.argument}" if place.argument else ""
        return f"{Path(place.file).stem}.{place.name}{argument}-{self.sha256[:8]}"

    @classmethod
    def of(cls, rule: Rule) -> "Policy":
        """Returns the policy of a rule under the rule's own name."""
        return cls(str(rule), rule)


class FilePlace(NamedTuple):
    """The parts of a policy of the form `FILE_FORM`."""

    file: str
    name: str  # of the class; "" if it is missing
    argument: str

    @classmethod
    def of(cls, text: str) -> "FilePlace | None":
        """Splits a policy; returns None if it has another form."""
        found = _FILE.fullmatch(text)
        return found and cls(*(found[part] or "" for part in cls._fields))


def parse_policy(text: str, config: ModelConfig) -> Policy:
    """Parses a policy: the name of a rule in `dat_jax.exits.rules.RULES` and its argument.

    A rule in a file is refused: only what the user names may run, by `dat_jax.exits.files`.

    Raises:
        UserError: there is no such rule, its argument is invalid, or the model of `config` lacks
            what the rule needs.
    """
    if FilePlace.of(text):
        raise UserError(
            f"policy is {text!r}, in a config: code in a file runs only if you name it yourself, "
            "by --config.policy of decode.py or policy= in Python"
        )
    kind, colon, argument = text.partition(":")
    rule = find_rule(kind, text, config)
    if (colon and not rule.argument) or (not argument and (colon or rule.argument.startswith(":"))):
        raise UserError(f"policy is {text!r}: must have the form {rule.form()}")
    try:
        found = rule.parse(argument, config.decoder_layers)
        _check_exits(found, config)
    except UserError as error:
        raise UserError(f"policy is {text!r}: {error}") from None
    return Policy.of(found)


def find_rule(kind: str, text: str, config: ModelConfig) -> type[Rule]:
    """Returns the rule of this name, for the policy `text`.

    Raises:
        UserError: there is no such rule, or the model of `config` lacks what it needs.
    """
    named = {rule.kind: rule for rule in RULES}
    if kind not in named:
        forms = ", ".join([*(rule.form() for rule in RULES), FILE_FORM])
        raise UserError(f"policy is {text!r}: must be one of {forms}")
    available = available_rules(config)
    if named[kind] not in available:
        raise UserError(
            f"policy is {text!r}: this model lacks the exit head or the exits for it; use one of "
            + ", ".join(rule.form() for rule in available)
        )
    return named[kind]


def available_rules(config: ModelConfig) -> list[type[Rule]]:
    """Returns the rules that a model can decode with, the simplest first."""
    return [rule for rule in RULES if rule.fits(config)]


def _check_exits(rule: Rule, config: ModelConfig) -> None:
    """Makes sure that the model has a classifier at the deepest exit of the rule.

    Raises:
        UserError: it has not.
    """
    if rule.deepest(config.decoder_layers) not in config.exit_depths:
        raise UserError(f"the depth must be one of {', '.join(map(str, config.exit_depths))}")
