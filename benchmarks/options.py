# SPDX-License-Identifier: Apache-2.0
"""Options of benchmarks that absl has no kind of."""

from collections.abc import Sequence

from dat_jax.errors import UserError


def numbers(name: str, texts: Sequence[str], least: int) -> list[int]:
    """The whole numbers that the option of this name lists.

    Raises:
        UserError: there are none, or something else.
    """
    for text in texts or [""]:
        if not text.isdecimal() or int(text) < least:
            raise UserError(
                f"--{name} has {text!r}: must be whole numbers, each {least} or more, as "
                f"--{name}={least},{least + 1}"
            )
    return [int(text) for text in texts]


def some(name: str, texts: Sequence[str], known: Sequence[str]) -> list[str]:
    """The names that the option of this name lists; all that are known if it lists none.

    Raises:
        UserError: there is none of a name.
    """
    for text in texts:
        if text not in known:
            raise UserError(f"--{name} has {text!r}: must be some of {', '.join(known)}")
    return list(texts or known)
