# SPDX-License-Identifier: Apache-2.0
"""Validation pairs taken from the training pairs of a source, as benchmarks without any do."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from dat_jax.data.sources.source import Source
from dat_jax.errors import UserError


class HeldOutValidation:
    """A source whose every K-th training pair is for validation, and not for training."""

    def __init__(self, source: Source, every: int) -> None:
        """Takes the `every`-th pair of `source`, the one after as many more, and so on."""
        self._source, self._every = source, every

    @property
    def files(self) -> Sequence[Path]:
        """Those of the source."""
        return self._source.files

    def pairs(self, split: str) -> Iterator[tuple[str, str]]:
        """Yields the (source, reference) pairs of `split` in the order of the source.

        Raises:
            UserError: the source has too few training pairs for one of them to be held out.
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
                f"data.valid_every is {self._every}, and there are {number} training pairs: none "
                "would be held out; lower it"
            )
