# SPDX-License-Identifier: Apache-2.0
"""Counts that BLEU is made of, sentence by sentence, and their text in a line of results."""

import base64
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from sacrebleu.metrics import BLEU

ORDERS = 4

Counts = Int[np.ndarray, "sentences counts"]
"""Of each sentence the n-grams of orders 1 to 4 that are right, all of these, and the lengths of
translation and reference."""


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
    return flat.reshape(2 * ORDERS + 2, -1).T.astype(np.int32)
