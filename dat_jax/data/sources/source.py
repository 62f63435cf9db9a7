# SPDX-License-Identifier: Apache-2.0
"""What all sources of sentence pairs have."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class Source(Protocol):
    """Sentence pairs in the three splits, and the files of the user's that they come from."""

    @property
    def files(self) -> Sequence[Path]:
        """The files that somebody may change; none if the text is made or looked after by code."""
        ...

    def pairs(self, split: str) -> Iterator[tuple[str, str]]:
        """Yields the (source, reference) pairs of `split`, in the same order each time."""
        ...
