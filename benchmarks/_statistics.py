# SPDX-License-Identifier: Apache-2.0
"""Counts of BLEU for each sentence, kept with the lines; intervals of its differences from these.

The text itself is kept nowhere: with counts alone, sets of sentences are drawn and scored again.
"""

import base64
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from sacrebleu.metrics import BLEU

_ORDERS = 4
_SAMPLES = 1_000
_SEED = 12_345

Counts = Int[np.ndarray, "sentences counts"]
"""Of each sentence the n-grams of orders 1 to 4 that are right, all of these, and the lengths of
translation and reference."""


class Interval(NamedTuple):
    """A figure, and the ends of its interval of 95 %."""

    value: float
    low: float
    high: float


def count(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str) -> Counts:
    """Counts what BLEU is made of; `tokenizer` is sacreBLEU's name of one."""
    bleu = BLEU(tokenize=tokenizer, effective_order=True)
    pairs = zip(hypotheses, references, strict=True)
    scores = [bleu.sentence_score(hypothesis, [reference]) for hypothesis, reference in pairs]
    return np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores], np.int32)


def pack(counts: Counts) -> str:
    """Makes a text of counts, for a line of JSON."""
    return base64.b85encode(zlib.compress(counts.astype("<u2").T.tobytes(), 9)).decode()


def unpack(text: str) -> Counts:
    """Reads what `pack` made."""
    flat = np.frombuffer(zlib.decompress(base64.b85decode(text)), "<u2")
    return flat.reshape(2 * _ORDERS + 2, -1).T.astype(np.int32)


def bleu(counts: Int[np.ndarray, "counts"]) -> float:
    """The corpus's BLEU, from the sums over its sentences."""
    right, all_, (length, of_reference) = np.split(counts, [_ORDERS, 2 * _ORDERS])
    return BLEU.compute_bleu(
        correct=right.tolist(),
        total=all_.tolist(),
        sys_len=int(length),
        ref_len=int(of_reference),
        smooth_method="exp",
    ).score


def difference(systems: Sequence[Counts], weights: Sequence[float]) -> Interval:
    """The weighted sum of several systems' BLEU on the same sentences, by paired bootstrap.

    With weights 1 and -1 that is the difference of two; the sentences that are drawn are the same
    for all.
    """
    sizes = {len(counts) for counts in systems}
    assert len(sizes) == 1, "they are of several texts"
    size = sizes.pop()
    drawn = np.random.default_rng(_SEED).multinomial(size, np.full(size, 1 / size), _SAMPLES)
    sums = [drawn @ counts for counts in systems]  # [samples, counts]
    samples = np.array([[bleu(sample) for sample in of_system] for of_system in sums])
    low, high = np.quantile(np.asarray(weights) @ samples, [0.025, 0.975])
    return Interval(weighted_sum(systems, weights), float(low), float(high))


def weighted_sum(systems: Sequence[Counts], weights: Sequence[float]) -> float:
    """The weighted sum of several systems' BLEU."""
    return float(np.dot(weights, [bleu(counts.sum(axis=0)) for counts in systems]))
