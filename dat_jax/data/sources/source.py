# SPDX-License-Identifier: Apache-2.0
"""The interface of all sources of sentence pairs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class Source(Protocol):
    """Sentence pairs in three splits, and the user's files that they come from."""

    @property
    def files(self) -> Sequence[Path]:
        """The files that a user may change; empty if the text is generated or managed by code."""
        ...

    def pairs(self, split: str) -> Iterator[tuple[str, str]]:
        """Yields the (source, reference) pairs of `split`, in the same order each time."""
        ...
