# SPDX-License-Identifier: Apache-2.0
"""Intervals by bootstrap: of BLEU over the sentences of a text, of a time over its repetitions.

Lines keep counts of BLEU for each sentence, and no text: with counts alone, sets of sentences are
drawn and scored again.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sacrebleu.metrics import BLEU

from benchmarks.bleu_counts import ORDERS, Counts

_SAMPLES = 1_000
_SEED = 12_345

Draws = Float[np.ndarray, " draws"]
"""A figure as it was measured, and then as each draw has it."""


class Interval(NamedTuple):
    """A figure, and the ends of its interval of 95 %."""

    value: float
    low: float
    high: float


def bleu(counts: Int[np.ndarray, "counts"]) -> float:
    """The corpus's BLEU, from the sums over its sentences."""
    right, all_, (length, of_reference) = np.split(counts, [ORDERS, 2 * ORDERS])
    return BLEU.compute_bleu(
        correct=right.tolist(),
        total=all_.tolist(),
        sys_len=int(length),
        ref_len=int(of_reference),
        smooth_method="exp",
    ).score


def draws_of_bleu(systems: Sequence[Counts]) -> list[Draws]:
    """Returns BLEU of each system on sets of sentences, which are the same for all systems."""
    sizes = {len(counts) for counts in systems}
    assert len(sizes) == 1, "they are of several texts"
    size = sizes.pop()
    drawn = np.random.default_rng(_SEED).multinomial(size, np.full(size, 1 / size), _SAMPLES)
    sets = np.concatenate([np.ones((1, size), drawn.dtype), drawn])
    return [np.array([bleu(sums) for sums in sets @ counts]) for counts in systems]


def draws_of_median(repetitions: Sequence[float], name: str) -> Draws:
    """Returns the median of repetitions, and of as many that are drawn from them.

    `name` is that of the measurement: draws for another are independent.
    """
    generator = np.random.default_rng([_SEED, zlib.crc32(name.encode())])
    drawn = generator.choice(repetitions, (_SAMPLES, len(repetitions)))
    return np.concatenate([[np.median(repetitions)], np.median(drawn, axis=1)])


def interval(draws: Draws) -> Interval:
    """Returns a figure, and the ends between which 95 % of its draws lie."""
    low, high = np.quantile(draws[1:], [0.025, 0.975])
    return Interval(float(draws[0]), float(low), float(high))
