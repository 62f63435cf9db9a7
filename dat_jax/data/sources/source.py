# SPDX-License-Identifier: Apache-2.0
"""The interface of all sources of sentence pairs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class Source(Protocol):
    """Sentence pairs in two or three splits, and the user's files that they come from."""

    @property
    def files(self) -> Sequence[Path]:
        """The files that a user may change; empty if the text is generated or managed by code."""
        ...

    @property
    def splits(self) -> Sequence[str]:
        """The splits that it has: `train`, `valid` and, unless it has none, `test`."""
        ...

    def pairs(self, split: str) -> Iterator[tuple[str, str]]:
        """Yields the (source, reference) pairs of `split`, in the same order each time."""
        ...
