# SPDX-License-Identifier: Apache-2.0
"""From lines of text to translations in the same order, by way of batches of similar length."""

import dataclasses
import math
import sys
import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from dat_jax.config import DecodingConfig
from dat_jax.data.dataset import Dataset
from dat_jax.data.vocabulary import EOS, PAD
from dat_jax.decoding.lockstep import search
from dat_jax.exits.policies import Policy
from dat_jax.model.transformer import Transformer
from dat_jax.types import Params

_SHORTEST_SOURCE = 16


@dataclasses.dataclass(frozen=True)
class Translation:
    """One sentence's best hypothesis."""

    text: str
    pieces: tuple[str, ...]  # EOS included; none for an empty sentence
    exits: tuple[int, ...]  # the depth that each piece exited at
    score: float  # log-probability / length ** length_penalty
    source_length: int  # pieces of the source, EOS included


@dataclasses.dataclass(frozen=True)
class Translations:
    """The translations of some text, in its order, and what it took to make them."""

    sentences: tuple[Translation, ...]
    seconds: float
    layer_rows: int  # how often a decoder block was run on one hypothesis' token
    cut: int  # sources that were cut to data.max_length


@dataclasses.dataclass(frozen=True)
class Translator:
    """A model with all that it needs to translate text."""

    model: Transformer
    params: Params
    dataset: Dataset
    policy: Policy
    decoding: DecodingConfig

    def translate(self, lines: Sequence[str], description: str = "translating") -> Translations:
        """Translates each line; an empty one stays empty.

        Longer lines than `data.max_length` pieces are cut there, and counted. A progress bar shows
        on a terminal.
        """
        started = time.monotonic()
        sources = self.dataset.source_vocabulary.encode(lines)
        max_length = self.dataset.config.max_length
        cut = sum(len(source) > max_length for source in sources)
        sources = [
            source if len(source) <= max_length else [*source[: max_length - 1], EOS]
            for source in sources
        ]
        translations = [Translation("", (), (), 0.0, len(source)) for source in sources]
        spoken = [index for index, line in enumerate(lines) if line.strip()]
        spoken.sort(key=lambda index: len(sources[index]), reverse=True)
        rows = min(self.decoding.batch_size, len(spoken))
        layer_rows = 0
        with tqdm(
            total=len(spoken),
            desc=description,
            unit="sentence",
            dynamic_ncols=True,
            leave=False,
            disable=not sys.stderr.isatty(),
        ) as bar:
            for start in range(0, len(spoken), max(rows, 1)):
                batch = spoken[start : start + rows]
                found, rows_run = self._search([sources[index] for index in batch], batch, rows)
                for index, translation in zip(batch, found, strict=True):
                    translations[index] = translation
                layer_rows += rows_run
                bar.update(len(batch))
        return Translations(tuple(translations), time.monotonic() - started, layer_rows, cut)

    def _search(
        self, sources: list[list[int]], lines: list[int], rows: int
    ) -> tuple[list[Translation], int]:
        """Searches for the translations of `sources`, longest first, in a batch of `rows` rows.

        `lines` are their numbers in the text.
        """
        ratio, extra = self.decoding.max_length_ratio, self.decoding.max_length_extra
        length = _room(len(sources[0]))
        limits = np.ones(rows, np.int32)
        limits[: len(sources)] = [math.floor(ratio * len(s)) + extra for s in sources]
        numbers = np.zeros(rows, np.int32)
        numbers[: len(lines)] = lines
        hypotheses, rows_run = search(
            self.model,
            self.params,
            _pad(sources, rows, length),
            limits,
            numbers,
            policy=self.policy,
            beam_size=self.decoding.beam_size,
            length_penalty=self.decoding.length_penalty,
            max_length=math.floor(ratio * length) + extra,
        )
        vocabulary = self.dataset.target_vocabulary
        tokens, exits, scores = map(
            np.asarray, (hypotheses.tokens, hypotheses.exits, hypotheses.scores)
        )
        found = []
        for row, source in enumerate(sources):
            end = int(hypotheses.lengths[row])
            found.append(
                Translation(
                    text=vocabulary.decode(tokens[row, :end]),
                    pieces=tuple(vocabulary.pieces(tokens[row, :end])),
                    exits=tuple(map(int, exits[row, :end])),
                    score=float(scores[row]),
                    source_length=len(source),
                )
            )
        return found, int(rows_run)


def _room(length: int) -> int:
    """The next power of two, so that few shapes need compiling."""
    return max(_SHORTEST_SOURCE, 1 << (length - 1).bit_length())


def _pad(sources: list[list[int]], rows: int, length: int) -> Int[np.ndarray, "rows length"]:
    batch = np.full((rows, length), PAD, np.int32)
    for row, source in enumerate(sources):
        batch[row, : len(source)] = source
    return batch
