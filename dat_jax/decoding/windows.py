# SPDX-License-Identifier: Apache-2.0
"""Windows of lines: read together, worked on together, so that memory does not grow with a text."""

import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

from tqdm import tqdm

from dat_jax.runtime.processes import is_first

Line = TypeVar("Line")  # or a pair of them

_PATIENCE = 0.1  # seconds in which further lines may join the first of a window


def progress_bar(description: str, total: int | None, done: int) -> tqdm:
    """Returns the bar of the first process, shown on a terminal.

    Args:
        description: of the work.
        total: number of sentences, if known.
        done: how many of them were finished by an earlier process.
    """
    return tqdm(
        initial=done,
        total=total,
        desc=description,
        unit="sentence",
        dynamic_ncols=True,
        leave=False,
        disable=not (is_first() and sys.stderr and sys.stderr.isatty()),
    )


def read_window(
    lines: Iterator[Line], size: int, arrives_within: Callable[[float], bool]
) -> list[Line]:
    """Reads a line, and up to `size` in all that come soon, or at once from then on."""
    window = list(islice(lines, 1))
    deadline = time.monotonic() + _PATIENCE
    while 0 < len(window) < size and arrives_within(max(0.0, deadline - time.monotonic())):
        further = list(islice(lines, 1))
        if not further:
            break
        window += further
    return window
