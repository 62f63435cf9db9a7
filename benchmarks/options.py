# SPDX-License-Identifier: Apache-2.0
"""Checks options that list numbers or names, separated by commas."""

from collections.abc import Collection, Sequence

from dat_jax.errors import UserError


def numbers(name: str, texts: Sequence[str], least: int) -> list[int]:
    """Returns the integers that an option lists.

    Raises:
        UserError: it lists none, or something other than integers of at least `least`.
    """
    for text in texts or [""]:
        if not text.isdecimal() or int(text) < least:
            raise UserError(
                f"--{name} has {text!r}: must be whole numbers, each {least} or more, as "
                f"--{name}={least},{least + 1}"
            )
    return [int(text) for text in texts]


def some(name: str, texts: Sequence[str], known: Collection[str]) -> list[str]:
    """Returns the names that an option lists, or all `known` names if it lists none.

    Raises:
        UserError: a name is unknown.
    """
    for text in texts:
        if text not in known:
            raise UserError(f"--{name} has {text!r}: must be some of {', '.join(known)}")
    return list(texts or known)
