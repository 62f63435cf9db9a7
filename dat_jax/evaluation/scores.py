# SPDX-License-Identifier: Apache-2.0
"""Translation quality as sacreBLEU measures it, on detokenised text."""

import dataclasses
from collections.abc import Sequence

from sacrebleu.metrics import BLEU, CHRF

from dat_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Scores:
    """Corpus scores from 0 to 100, with the signatures that say how they were computed."""

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str


def check_lengths(sentences: int, references: int) -> None:
    """Makes sure that there is something to score, and one reference for each sentence.

    Raises:
        UserError: it is not so.
    """
    if sentences != references:
        raise UserError(
            f"{sentences} sentences but {references} references: "
            "give the reference file one line for each sentence"
        )
    if not sentences:
        raise UserError("no sentences to score: give an input of at least one line")


def score(hypotheses: Sequence[str], references: Sequence[str]) -> Scores:
    """Compares each hypothesis with the one reference on the same line.

    Raises:
        UserError: there are no lines, or not as many hypotheses as references.
    """
    check_lengths(len(hypotheses), len(references))
    bleu, chrf = BLEU(), CHRF()
    return Scores(
        bleu=bleu.corpus_score(hypotheses, [references]).score,
        bleu_signature=str(bleu.get_signature()),
        chrf=chrf.corpus_score(hypotheses, [references]).score,
        chrf_signature=str(chrf.get_signature()),
    )
