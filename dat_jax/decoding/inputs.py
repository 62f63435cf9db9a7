# SPDX-License-Identifier: Apache-2.0
"""What a caller gives a model: lines of text or token ids, checked before anything is decoded."""

import re
from collections.abc import Iterable
from reprlib import repr as shorten
from typing import Any

from dat_jax.config.schema import integer
from dat_jax.data.vocabulary import BOS, EOS, PAD
from dat_jax.errors import UserError

_SURROGATE = re.compile("[\ud800-\udfff]")  # alone, for a pair is one character in Python
_NOT_INSIDE = {PAD: "PAD", BOS: "BOS", EOS: "EOS"}


def read_lines(lines: object) -> list[str]:
    """Returns the sentences of any iterable of text, which a text itself is not.

    Raises:
        UserError: it is something else.
    """
    read = _items(lines, "lines", "a list of sentences, as ['zwei']")
    for number, line in enumerate(read):
        if not isinstance(line, str):
            raise UserError(f"lines has {shorten(line)} at {number}: give each sentence as str")
        if half := _SURROGATE.search(line):
            raise UserError(
                f"lines has a lone surrogate, {half[0]!r}, at {number}: decode its bytes with "
                "errors='replace'"
            )
    return read


def read_sources(sources: object, vocabulary_size: int) -> list[list[int]]:
    """Returns the token ids of sentences, as the vocabulary encodes text: EOS at the end alone.

    Padding on the right is dropped.

    Args:
        sources: lists or arrays of whole numbers, or an array with a row for each sentence.
        vocabulary_size: of the source.

    Raises:
        UserError: one is no sentence in a vocabulary of this size.
    """
    return [
        _read_source(source, f"source {number}", vocabulary_size)
        for number, source in enumerate(_items(sources, "ids", "a list of sources, as [[17, 3]]"))
    ]


def read_limits(limits: object, sources: int) -> list[int]:
    """Returns the most tokens of each hypothesis.

    Raises:
        UserError: they are not as many as the sources, or no whole numbers from 1.
    """
    items = _items(limits, "limits", "a list of whole numbers, as [20]")
    if len(items) != sources:
        raise UserError(f"limits has {len(items)} items for {sources} sources: give one for each")
    for number, limit in enumerate(items):
        if type(limit) is not int or limit < 1:
            raise UserError(
                f"limits has {shorten(limit)} at {number}: give whole numbers, each 1 or more"
            )
    return items


def read_n_best(count: object, beam_size: int) -> int:
    """Returns how many hypotheses each sentence's list has; 0 for no list, which 1 stands for too.

    Raises:
        UserError: it is no whole number from 0 to `beam_size`.
    """
    number = integer("n_best", count)
    if number < 0:
        raise UserError(f"n_best is {number}: must be 0 or more")
    if number > beam_size:
        raise UserError(
            f"n_best is {number} and beam_size is {beam_size}, the most hypotheses that a search "
            f"finishes: lower n_best, or set beam_size to {number} or more"
        )
    return number if number > 1 else 0


def _read_source(source: object, name: str, vocabulary_size: int) -> list[int]:
    ids = _items(source, name, "a list of token ids, as [17, 3]")
    for place, index in enumerate(ids):
        if type(index) is not int:
            raise UserError(f"{name} has {shorten(index)} at {place}: give whole numbers")
        if not 0 <= index < vocabulary_size:
            raise UserError(
                f"{name} has {index} at {place}: give ids of this model's source vocabulary, 0 to "
                f"{vocabulary_size - 1}"
            )
    while ids and ids[-1] == PAD:
        ids.pop()
    if not ids or ids[-1] != EOS:
        raise UserError(f"{name} does not end with EOS: append {EOS}")
    for place, index in enumerate(ids[:-1]):
        if index in _NOT_INSIDE:
            raise UserError(
                f"{name} has {_NOT_INSIDE[index]}, {index}, at {place}: leave it out; EOS ends a "
                "source, and only PAD may follow"
            )
    return ids


def _items(values: object, name: str, form: str) -> list[Any]:
    """Returns the items of any iterable but a text, those of arrays as Python's own numbers."""
    values = _plain(values)
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise UserError(f"{name} is {shorten(values)}: must be {form}")
    return list(map(_plain, values))


def _plain(value: Any) -> Any:
    """Returns an array or a number of NumPy, JAX or the like as Python's own."""
    return value.tolist() if hasattr(value, "tolist") else value
