# SPDX-License-Identifier: Apache-2.0
"""Builds frozen dataclasses from nested dictionaries and checks the type of every value."""

import dataclasses
import difflib
import math
import numbers
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from dat_jax.errors import UserError

Made = TypeVar("Made")

FORMS = {
    int: "an integer, such as 20",
    float: "a number, such as 0.5",
    str: "text",
    bool: "true or false",
}
"""The form of a value of each type, for messages."""
_KINDS = {int: numbers.Integral, float: numbers.Real}  # accepts NumPy's too


def require(holds: bool, message: str) -> None:
    """Raises a `UserError` with this message unless `holds` is true."""
    if not holds:
        raise UserError(message)


def require_at_least(section: str, config: object, minimum: int | float, names: str) -> None:
    """Raises a `UserError` unless all named values are finite and at least `minimum`."""
    for name in names.split():
        value = getattr(config, name)
        finite = "" if math.isfinite(value) else ", and finite"
        require(
            minimum <= value < math.inf,
            f"{section}.{name} is {value}: must be {minimum} or more{finite}",
        )


def require_rate(section: str, config: object, names: str) -> None:
    """Raises a `UserError` unless all named values are in [0, 1)."""
    for name in names.split():
        value = getattr(config, name)
        require(0 <= value < 1, f"{section}.{name} is {value}: must be in [0, 1)")


def integer(name: str, value: object) -> int:
    """Returns a whole number as Python's own.

    Raises:
        UserError: it is something else.
    """
    return _convert(value, int, name)


def from_dict(cls: type[Made], values: Mapping[str, Any], prefix: str = "") -> Made:
    """Builds the frozen dataclass `cls`, and those nested in it, from dictionaries.

    Args:
        cls: the dataclass.
        values: one entry per field.
        prefix: the path of `values` in the config, for messages.

    Raises:
        UserError: a key is unknown or missing, or a value has the wrong type or is impossible.
    """
    types = typing.get_type_hints(cls)
    for key in values:
        if key not in types:
            close = difflib.get_close_matches(key, types, n=1)
            hint = f": did you mean {prefix}{close[0]}?" if close else ""
            raise UserError(f"unknown config key {prefix}{key}{hint}")
    for key in types:
        if key not in values:
            raise UserError(f"missing config key {prefix}{key}: add it")
    return cls(**{key: _convert(values[key], types[key], prefix + key) for key in types})


def _convert(value: Any, kind: Any, name: str) -> Any:
    """Checks `value` against the annotation `kind` and converts it.

    Accepts an int for a float, a NumPy number for a Python one, and a list for a tuple, because
    JSON stores tuples as lists.
    """
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise UserError(f"config.{name} is {value!r}: must be a section")
        return from_dict(typing.cast(type, kind), value, prefix=f"{name}.")
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise UserError(f"{name} is {value!r}: must be one of {', '.join(choices)}")
        return value
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        example = "('a', 'b')" if item is str else "(1, 2)"
        if not isinstance(value, list | tuple) or not all(_is(v, item) for v in value):
            raise UserError(
                f"{name} is {value!r}: must be a tuple of {item.__name__}, such as {example}, or ()"
            )
        return tuple(map(item, value))
    if not _is(value, kind):
        raise UserError(f"{name} is {value!r}: must be {FORMS[kind]}")
    return kind(value)


def _is(value: Any, kind: type) -> bool:
    """Returns whether `value` is of type `kind`; a bool does not count as a number."""
    return isinstance(value, _KINDS.get(kind, kind)) and (
        kind is bool or not isinstance(value, bool)
    )
