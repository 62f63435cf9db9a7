# SPDX-License-Identifier: Apache-2.0
"""Validation pairs held out from the training pairs of a source."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from dat_jax.data.sources.source import Source
from dat_jax.data.splits import SPLITS
from dat_jax.errors import UserError


class HeldOutValidation:
    """A source that holds out every K-th training pair for validation."""

    def __init__(self, source: Source, every: int) -> None:
        """Wraps `source`; `every` is K."""
        self._source, self._every = source, every

    @property
    def files(self) -> Sequence[Path]:
        """The files of the source."""
        return self._source.files

    @property
    def splits(self) -> Sequence[str]:
        """The splits of the source, and `valid`."""
        return [split for split in SPLITS if split == "valid" or split in self._source.splits]

    def pairs(self, split: str) -> Iterator[tuple[str, str]]:
        """Yields the (source, reference) pairs of `split` in the order of the source.

        Raises:
            UserError: the source has fewer than K training pairs.
        """
        if split == "test":
            yield from self._source.pairs(split)
            return
        number = 0
        for number, pair in enumerate(self._source.pairs("train"), start=1):
            if (number % self._every == 0) == (split == "valid"):
                yield pair
        if number < self._every:
            raise UserError(
                f"data.valid_every is {self._every}, but there are only {number} training pairs, "
                "so none would be held out: lower it"
            )
