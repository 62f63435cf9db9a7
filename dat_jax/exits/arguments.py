# SPDX-License-Identifier: Apache-2.0
"""Arguments after the colon of a rule's name: depths, a count of exits, a seed, or thresholds."""

import re

from dat_jax.errors import UserError


def read_depth(argument: str, num_layers: int) -> int:
    """Parses a depth; "" is the deepest.

    Raises:
        UserError: it is not an integer from 1 to N.
    """
    depths = range(1, num_layers + 1)
    if not argument:
        return num_layers
    if not _is_whole(argument) or int(argument) not in depths:
        raise UserError(f"the depth must be one of {', '.join(map(str, depths))}")
    return int(argument)


def read_falling_depths(argument: str, num_layers: int) -> tuple[int, int]:
    """Parses FIRST-LAST.

    Raises:
        UserError: they are not two depths from 1 to N, or the second is the greater one.
    """
    depths = re.fullmatch(r"([0-9]+)-([0-9]+)", argument)
    first, last = map(int, depths.groups()) if depths else (0, 0)
    if not 1 <= last <= first <= num_layers:
        raise UserError(
            f"FIRST-LAST must be two depths from 1 to {num_layers}, and FIRST no less than LAST"
        )
    return first, last


def read_count(argument: str, num_layers: int) -> int:
    """Parses a number of exits.

    Raises:
        UserError: it is not an integer from 1 to N.
    """
    if not _is_whole(argument) or not 1 <= int(argument) <= num_layers:
        raise UserError(f"the number of exits must be an integer from 1 to {num_layers}")
    return int(argument)


def read_seed(argument: str) -> int:
    """Parses a seed; "" is 0.

    Raises:
        UserError: it is not an integer from 0 to 2^31 - 1.
    """
    if not _is_whole(argument or "0") or int(argument or 0) >= 2**31:
        raise UserError("the seed must be an integer from 0 to 2^31 - 1")
    return int(argument or 0)


def read_thresholds(argument: str, depths: range) -> tuple[float, ...]:
    """Parses thresholds, one for each of these depths; one number stands for all.

    Raises:
        UserError: they are not numbers in [0, 1], or neither one nor as many as depths.
    """
    try:
        values = tuple(float(part) for part in argument.split(","))
    except ValueError:
        raise UserError("thresholds must be numbers separated by commas") from None
    if not all(0 <= value <= 1 for value in values):
        raise UserError("thresholds must be in [0, 1]")
    count = len(depths)
    if len(values) not in (1, count):
        lowest = "" if depths[0] == 1 else f" from {depths[0]} on"
        wanted = f"1 threshold, or {count}, one for each depth{lowest} except the last"
        raise UserError(f"needs {wanted}, not {len(values)}")
    return values * count if len(values) == 1 else values


def write_thresholds(thresholds: tuple[float, ...] | float) -> str:
    """Returns the shortest text that `read_thresholds` parses to the same numbers."""
    thresholds = thresholds if isinstance(thresholds, tuple) else (thresholds,)
    different = dict.fromkeys(thresholds)
    return ",".join(str(x) for x in (different if len(different) == 1 else thresholds))


def _is_whole(argument: str) -> bool:
    return re.fullmatch(r"[0-9]+", argument) is not None
