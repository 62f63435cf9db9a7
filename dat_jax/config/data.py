# SPDX-License-Identifier: Apache-2.0
"""The section `data`: the source of the text, and its conversion to token ids."""

import dataclasses
import math
from typing import Literal

from dat_jax.config.schema import require, require_at_least

Normalization = Literal["nmt_nfkc", "nfc", "none"]

PATHS = ("prepared", "source_vocabulary", "target_vocabulary")
"""The keys that are paths, or empty."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The source of the text, its vocabulary and filters."""

    source: str
    prepared: str
    source_language: str
    target_language: str
    vocabulary: Literal["joint", "separate"]
    source_vocabulary: str
    target_vocabulary: str
    vocabulary_size: int
    pieces: Literal["unigram", "bpe"]
    source_normalization: Normalization
    target_normalization: Normalization
    max_length: int
    max_length_ratio: float
    valid_every: int
    seed: int

    def __post_init__(self) -> None:
        kind, colon, _ = self.source.partition(":")
        require(
            colon == ":" and kind in ("generated", "text", "tfds"),
            f"data.source is {self.source!r}: must be generated:[PAIRS], text:DIR or tfds:NAME",
        )
        require(
            kind != "tfds" or self.source_language != self.target_language,
            f"data.source_language and data.target_language are both {self.source_language!r}: "
            "set them to two languages",
        )
        if self.vocabulary == "joint":
            require(
                self.target_vocabulary in ("", self.source_vocabulary),
                f"data.target_vocabulary is {self.target_vocabulary!r} and data.vocabulary is "
                "joint: give the one file as data.source_vocabulary, or set data.vocabulary to "
                "separate",
            )
        require_at_least("data", self, 5, "vocabulary_size")
        require_at_least("data", self, 2, "max_length")
        require_at_least("data", self, 0, "seed")
        for key, least in {"max_length_ratio": 1, "valid_every": 2}.items():
            value = getattr(self, key)
            require(
                value == 0 or least <= value < math.inf,
                f"data.{key} is {value}: must be {least} or more, or 0",
            )

    @property
    def vocabulary_files(self) -> tuple[str, str]:
        """The SentencePiece models given for source and target; empty where one is trained."""
        joint = self.vocabulary == "joint"
        return self.source_vocabulary, self.source_vocabulary if joint else self.target_vocabulary
