# SPDX-License-Identifier: Apache-2.0
"""Translation quality as sacreBLEU measures it, on detokenised text."""

import dataclasses
import re
from collections.abc import Sequence

from sacrebleu.metrics import BLEU, CHRF

from dat_jax.config import Config, DecodingConfig
from dat_jax.errors import UserError

_TOKENIZERS = {
    **dict.fromkeys(("zh", "zho", "chi", "cmn", "yue"), "zh"),
    **dict.fromkeys(("ja", "jpn", "ko", "kor"), "char"),
}


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


def tokenizer_of(config: Config, decoding: DecodingConfig) -> str:
    """Returns sacreBLEU's name of the tokenizer that `decoding` asks for.

    By default it follows from the target language that `config` has been trained for: 13a splits at
    blanks, which not all languages have.
    """
    if decoding.bleu_tokenizer != "language":
        return decoding.bleu_tokenizer
    language = re.split("[-_]", config.data.target_language.lower())[0]
    return _TOKENIZERS.get(language, "13a")


def score(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str) -> Scores:
    """Compares each hypothesis with the one reference on the same line.

    `tokenizer` is sacreBLEU's name of what cuts them into words for BLEU.

    Raises:
        UserError: there are no lines, or not as many hypotheses as references.
    """
    check_lengths(len(hypotheses), len(references))
    bleu, chrf = BLEU(tokenize=tokenizer), CHRF()
    return Scores(
        bleu=bleu.corpus_score(hypotheses, [references]).score,
        bleu_signature=str(bleu.get_signature()),
        chrf=chrf.corpus_score(hypotheses, [references]).score,
        chrf_signature=str(chrf.get_signature()),
    )
