# SPDX-License-Identifier: Apache-2.0
"""Exits by position in a sentence and by confidence (paper, section 4.4), for lines of results."""

from collections.abc import Sequence

import numpy as np

from dat_jax.decoding.translator import Translation
from dat_jax.exits.thresholds import Thresholded
from dat_jax.tuning.observe import Observed
from dat_jax.tuning.search import exits_of

PARTS = 10
"""Equal parts of a sentence, from first to last token, and of the range of a probability."""


def by_position(sentences: Sequence[Translation]) -> list[float | None]:
    """Returns the average exit in each tenth of the translations; None without tokens."""
    sums, tokens = np.zeros(PARTS), np.zeros(PARTS)
    for sentence in sentences:
        length = len(sentence.exits)
        part = np.arange(length) * PARTS // max(length, 1)
        np.add.at(sums, part, sentence.exits)
        np.add.at(tokens, part, 1)
    return [float(s / n) if n else None for s, n in zip(sums, tokens, strict=True)]


def by_score(observed: Observed, rule: Thresholded) -> list[list[int]]:
    """Counts reference tokens by exit, 1 to N, and by the tenth of their probability there.

    Args:
        observed: the model's signals for the references, from one pass that copies no state.
        rule: compares a signal with thresholds.
    """
    exits = exits_of(observed, np.asarray(rule.thresholds))
    score = np.exp(observed.token_ll[exits - 1, np.arange(len(exits))])
    counts = np.zeros((len(observed.token_ll), PARTS), int)
    np.add.at(counts, (exits - 1, np.minimum((score * PARTS).astype(int), PARTS - 1)), 1)
    return counts.tolist()
