# SPDX-License-Identifier: Apache-2.0
"""Exit policies: when a token leaves the decoder. One line of text names each."""

import dataclasses

from dat_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Every token exits at the same depth."""

    depth: int

    def __str__(self) -> str:
        return f"fixed:{self.depth}"


Policy = Fixed


def parse_policy(text: str, exit_depths: tuple[int, ...]) -> Policy:
    """Reads `fixed[:DEPTH]`, by default the greatest depth.

    Args:
        text: the policy in one line.
        exit_depths: the depths at which the model has a classifier.

    Raises:
        UserError: there is no such policy, or the model has no such exit.
    """
    kind, _, argument = text.partition(":")
    if kind != "fixed":
        raise UserError(f"policy is {text!r}: must be fixed[:DEPTH]")
    depths = ", ".join(map(str, exit_depths))
    if not argument:
        return Fixed(exit_depths[-1])
    if not argument.isdecimal() or int(argument) not in exit_depths:
        raise UserError(f"policy is {text!r}: the model has exits at depth {depths}")
    return Fixed(int(argument))
