# SPDX-License-Identifier: Apache-2.0
"""Translation quality as sacreBLEU measures it, on detokenised text or on tokens."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from sacrebleu.metrics import BLEU, CHRF

from dat_jax.config import Config, DecodingConfig
from dat_jax.errors import UserError

_TOKENIZERS = {
    **dict.fromkeys(("zh", "zho", "chi", "cmn", "yue"), "zh"),
    **dict.fromkeys(("ja", "jpn", "ko", "kor"), "char"),
}


class Tokenizers(NamedTuple):
    """SacreBLEU's names of what cuts lines into words: as asked for, and as the language needs."""

    asked: str
    default: str


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


def tokenizers_of(config: Config, decoding: DecodingConfig) -> Tokenizers:
    """Returns the tokenizers of BLEU in decoding so with a model that was trained by `config`.

    The language's follows from the target of that: 13a splits at blanks, which not all have.
    """
    language = re.split("[-_]", config.data.target_language.lower())[0]
    default = _TOKENIZERS.get(language, "13a")
    asked = decoding.bleu_tokenizer
    return Tokenizers(default if asked == "language" else asked, default)


def score(
    hypotheses: Sequence[str], references: Sequence[str], tokenizers: Tokenizers
) -> dict[str, Any]:
    """Compares each hypothesis with the one reference on the same line.

    Returns:
        `bleu`, by the tokenizer that was asked for; `bleu_default`, by the language's if that is
        another; and `chrf`: from 0 to 100, each with the signature that says how it was computed.

    Raises:
        UserError: there are no lines, or not as many hypotheses as references.
    """
    check_lengths(len(hypotheses), len(references))
    known = tokenizers.asked == "none"  # that the text is tokenised, of which sacreBLEU would warn
    metrics = {"bleu": BLEU(tokenize=tokenizers.asked, force=known)}
    if tokenizers.default != tokenizers.asked:
        metrics["bleu_default"] = BLEU(tokenize=tokenizers.default, force=known)
    scores = dict[str, Any]()
    for name, metric in {**metrics, "chrf": CHRF()}.items():
        scores[name] = metric.corpus_score(hypotheses, [references]).score
        scores[f"{name}_signature"] = str(metric.get_signature())
    return scores
