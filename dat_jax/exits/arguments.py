# SPDX-License-Identifier: Apache-2.0
"""Arguments, which stand behind the colon of a rule's name: a depth, a seed, thresholds."""

from dat_jax.errors import UserError


def read_depth(argument: str, exit_depths: tuple[int, ...]) -> int:
    """Reads one of a model's exits; nothing means the deepest.

    Raises:
        UserError: the model has no such exit.
    """
    if not argument:
        return exit_depths[-1]
    if not argument.isdecimal() or int(argument) not in exit_depths:
        raise UserError(f"the model has exits at depth {', '.join(map(str, exit_depths))}")
    return int(argument)


def read_seed(argument: str) -> int:
    """Reads a seed; nothing means 0.

    Raises:
        UserError: it is no whole number, or too great a one.
    """
    if not (argument or "0").isdecimal() or int(argument or 0) >= 2**31:
        raise UserError("the seed must be a whole number from 0 to 2^31 - 1")
    return int(argument or 0)


def read_thresholds(argument: str, count: int) -> tuple[float, ...]:
    """Reads `count` thresholds, one for each depth but the last, from as many numbers or from one.

    Raises:
        UserError: they are no numbers from 0 to 1, or not as many.
    """
    try:
        values = tuple(float(part) for part in argument.split(","))
    except ValueError:
        raise UserError("thresholds must be numbers with commas between them") from None
    if not all(0 <= value <= 1 for value in values):
        raise UserError("thresholds must be in [0, 1]")
    if len(values) not in (1, count):
        wanted = f"1 threshold, or {count}, one for each depth but the last"
        raise UserError(f"needs {wanted}, not {len(values)}")
    return values * count if len(values) == 1 else values


def write_thresholds(thresholds: tuple[float, ...]) -> str:
    """Writes the shortest text that `read_thresholds` reads as the same numbers."""
    different = dict.fromkeys(thresholds)
    return ",".join(str(x) for x in (different if len(different) == 1 else thresholds))
