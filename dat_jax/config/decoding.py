# SPDX-License-Identifier: Apache-2.0
"""The section `decoding`."""

import dataclasses
from typing import Any, Literal

from dat_jax.config.schema import require, require_at_least


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """The exit policy, the search, and the scoring of translations."""

    policy: str
    report_policies: tuple[str, ...]
    report_split: Literal["valid", "test"]
    beam_size: int
    length_penalty: float
    max_length_ratio: float
    max_length_extra: int
    batch_size: int
    average_checkpoints: int
    bleu_tokenizer: Literal["language", "13a", "zh", "char", "intl", "none"]
    max_source_length: int
    shortlist: int
    trailing_gap: float

    def __post_init__(self) -> None:
        require_at_least("decoding", self, 1, "beam_size average_checkpoints max_length_extra")
        require_at_least(
            "decoding",
            self,
            0,
            "length_penalty max_length_ratio max_source_length batch_size shortlist trailing_gap",
        )
        require(
            self.max_source_length != 1,
            "decoding.max_source_length is 1: must be 2 or more, as it counts </s>, or 0",
        )

    def of_translations(self, checkpoint: str | None = None) -> dict[str, Any]:
        """Returns the settings that translations depend on.

        Args:
            checkpoint: best, last or a step, if one checkpoint translates instead of a mean.
        """
        settings = dataclasses.asdict(self)
        del settings["report_policies"], settings["report_split"]
        if checkpoint:
            del settings["average_checkpoints"]
            settings["checkpoint"] = checkpoint
        return settings
