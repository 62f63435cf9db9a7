# SPDX-License-Identifier: Apache-2.0
"""All that a compiled search depends on in addition to the model and the rule's class."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """Settings and sizes of a search. Sizes and windows change speed, not results."""

    beam_size: int  # hypotheses of a sentence, J
    length_penalty: float  # the exponent of the length that divides a log-probability
    length: int  # room for tokens, T; no limit may be greater
    slots: int  # sentences in work, G
    refill: int  # sentences that come in together
    sizes: tuple[int, ...]  # row counts that blocks are compiled for, ascending to R = G J
    shortlist: int  # words of exit 1 that deeper exits choose among; 0: all tokens
    trailing_gap: float  # nats behind the best hypothesis, from which on one exits first; 0: none
    windows: tuple[int, ...]  # position counts that attention is compiled for, ascending to T
    projected: int  # blocks that cache keys and values; those above cache states
    n_best: int = 0  # hypotheses of a sentence to return, as a list; 0: the best, without a list

    @property
    def rows(self) -> int:
        """The number of hypotheses in work, R."""
        return self.slots * self.beam_size
