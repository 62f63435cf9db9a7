# SPDX-License-Identifier: Apache-2.0
"""Bootstrap intervals: of BLEU over the sentences of a text, of a time over its repetitions."""

import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from sacrebleu.metrics import BLEU

from benchmarks.bleu_counts import ORDERS, Counts

_SAMPLES = 1_000
_SEED = 12_345

Draws = Float[np.ndarray, " draws"]
"""A figure as measured, followed by its value in each bootstrap draw."""


def bleu(counts: Int[np.ndarray, "counts"]) -> float:
    """Returns the BLEU of a corpus from the sums over its sentences."""
    correct, total, (length, reference_length) = np.split(counts, [ORDERS, 2 * ORDERS])
    lengths = int(length), int(reference_length)
    return BLEU.compute_bleu(correct.tolist(), total.tolist(), *lengths, smooth_method="exp").score


def draws_of_bleu(systems: Sequence[Counts]) -> list[Draws]:
    """Returns the BLEU of each system; a draw has the same sentences for all systems."""
    sizes = {len(counts) for counts in systems}
    assert len(sizes) == 1, "the systems are of different texts"
    size = sizes.pop()
    drawn = np.random.default_rng(_SEED).multinomial(size, np.full(size, 1 / size), _SAMPLES)
    sets = np.concatenate([np.ones((1, size), drawn.dtype), drawn])
    return [np.array([bleu(sums) for sums in sets @ counts]) for counts in systems]


def draws_of_median(repetitions: Sequence[float], name: str) -> Draws:
    """Returns the median of repetitions; draws of measurements with other names are independent."""
    generator = np.random.default_rng([_SEED, zlib.crc32(name.encode())])
    drawn = generator.choice(repetitions, (_SAMPLES, len(repetitions)))
    return np.concatenate([[np.median(repetitions)], np.median(drawn, axis=1)])


def interval(draws: Draws) -> tuple[float, float, float]:
    """Returns a figure and the two ends between which 95 % of its draws lie."""
    low, high = np.quantile(draws[1:], [0.025, 0.975])
    return float(draws[0]), float(low), float(high)
