# SPDX-License-Identifier: Apache-2.0
"""Arguments after the colon of a rule's name: a depth, a seed, or thresholds."""

from dat_jax.errors import UserError


def read_depth(argument: str, exit_depths: tuple[int, ...]) -> int:
    """Parses an exit depth; "" is the deepest.

    Raises:
        UserError: the model has no such exit.
    """
    if not argument:
        return exit_depths[-1]
    if not argument.isdecimal() or int(argument) not in exit_depths:
        raise UserError(f"the depth must be one of {', '.join(map(str, exit_depths))}")
    return int(argument)


def read_seed(argument: str) -> int:
    """Parses a seed; "" is 0.

    Raises:
        UserError: it is not an integer from 0 to 2^31 - 1.
    """
    if not (argument or "0").isdecimal() or int(argument or 0) >= 2**31:
        raise UserError("the seed must be an integer from 0 to 2^31 - 1")
    return int(argument or 0)


def read_thresholds(argument: str, count: int) -> tuple[float, ...]:
    """Parses `count` thresholds, one per depth except the last; one number stands for all.

    Raises:
        UserError: they are not numbers in [0, 1], or not 1 or `count` of them.
    """
    try:
        values = tuple(float(part) for part in argument.split(","))
    except ValueError:
        raise UserError("thresholds must be numbers separated by commas") from None
    if not all(0 <= value <= 1 for value in values):
        raise UserError("thresholds must be in [0, 1]")
    if len(values) not in (1, count):
        wanted = f"1 threshold, or {count}, one for each depth except the last"
        raise UserError(f"needs {wanted}, not {len(values)}")
    return values * count if len(values) == 1 else values


def write_thresholds(thresholds: tuple[float, ...]) -> str:
    """Returns the shortest text that `read_thresholds` parses to the same numbers."""
    different = dict.fromkeys(thresholds)
    return ",".join(str(x) for x in (different if len(different) == 1 else thresholds))
