# SPDX-License-Identifier: Apache-2.0
"""BLEU counts of single sentences: a line of results stores them instead of its translations."""

import base64
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from sacrebleu.metrics import BLEU

ORDERS = 4

Counts = Int[np.ndarray, "sentences counts"]
"""Per sentence: correct n-grams of orders 1 to 4, all n-grams of these orders, the length of the
translation and the length of the reference."""


def count(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str) -> Counts:
    """Returns the counts of each sentence; `tokenizer` is sacreBLEU's name of one."""
    bleu = BLEU(tokenize=tokenizer, effective_order=True)
    pairs = zip(hypotheses, references, strict=True)
    scores = [bleu.sentence_score(hypothesis, [reference]) for hypothesis, reference in pairs]
    return np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores], np.int32)


def pack(counts: Counts) -> str:
    """Compresses counts to text."""
    return base64.b85encode(zlib.compress(counts.astype("<u2").T.tobytes(), 9)).decode()


def unpack(text: str) -> Counts:
    """Returns the counts that `pack` compressed."""
    flat = np.frombuffer(zlib.decompress(base64.b85decode(text)), "<u2")
    return flat.reshape(2 * ORDERS + 2, -1).T.astype(np.int32)
