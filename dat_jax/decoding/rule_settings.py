# SPDX-License-Identifier: Apache-2.0
"""Settings of decoding that only some rules can use: the shortlist and the trailing gap."""

import dataclasses
from collections.abc import Container
from typing import Any

from dat_jax.config import DecodingConfig
from dat_jax.errors import UserError
from dat_jax.exits.questions import Rule


def check_rule_settings(decoding: DecodingConfig, rule: Rule, vocabulary_size: int) -> None:
    """Makes sure that a rule can use the settings that are meant for some rules.

    Raises:
        UserError: it cannot.
    """
    count, gap = decoding.shortlist, decoding.trailing_gap
    if count and not rule.classifies_each_block:
        raise UserError(
            f"shortlist is {count}, and {rule} needs no classifier after each block: set it to 0"
        )
    if gap and not rule.copies_states:
        raise UserError(
            f"trailing_gap is {gap}, and under {rule} no token exits deeper than an earlier one of "
            "its sentence: set it to 0"
        )
    check_shortlist_size(decoding, vocabulary_size)


def check_shortlist_size(decoding: DecodingConfig, vocabulary_size: int) -> None:
    """Makes sure that a shortlist, if one is asked for, has enough tokens and not too many.

    Raises:
        UserError: it has not.
    """
    count, fewest = decoding.shortlist, 2 * decoding.beam_size
    if count and not fewest <= count <= vocabulary_size:
        raise UserError(
            f"shortlist is {count}: with beam_size {decoding.beam_size} and {vocabulary_size} "
            f"tokens it must be from {fewest} to {vocabulary_size}, or 0 for all tokens"
        )


def suited(
    decoding: DecodingConfig, rule: Rule, asked: Container[str] = frozenset()
) -> DecodingConfig:
    """Returns the settings of a run without those that the rule cannot use. Those that are `asked`
    for by name stay, for `check_rule_settings` to refuse."""
    unusable: dict[str, Any] = {}
    if not rule.classifies_each_block:
        unusable["shortlist"] = 0
    if not rule.copies_states:
        unusable["trailing_gap"] = 0.0
    dropped = {name: value for name, value in unusable.items() if name not in asked}
    return dataclasses.replace(decoding, **dropped)
