# SPDX-License-Identifier: Apache-2.0
"""Translation quality by sacreBLEU, on detokenised or tokenised text."""

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
    """SacreBLEU's names of two tokenizers: the one set in the config, and the language's."""

    asked: str
    default: str


def check_lengths(sentences: int, references: int) -> None:
    """Checks that there is at least one sentence, and one reference per sentence.

    Raises:
        UserError: there is not.
    """
    if sentences != references:
        raise UserError(
            f"{sentences} sentences but {references} references: "
            "give the reference file one line for each sentence"
        )
    if not sentences:
        raise UserError("no sentences to score: give an input with at least one line")


def tokenizers_of(config: Config, decoding: DecodingConfig) -> Tokenizers:
    """Returns BLEU's tokenizers for a model trained with `config` and decoded with `decoding`.

    13a splits at blanks, so languages written without blanks need another default.
    """
    language = re.split("[-_]", config.data.target_language.lower())[0]
    default = _TOKENIZERS.get(language, "13a")
    asked = decoding.bleu_tokenizer
    return Tokenizers(default if asked == "language" else asked, default)


def score(
    hypotheses: Sequence[str], references: Sequence[str], tokenizers: Tokenizers
) -> dict[str, Any]:
    """Scores each hypothesis against the reference on the same line.

    Returns:
        `bleu` with the tokenizer of the config; `bleu_default` with the language's if it differs;
        and `chrf`. All are from 0 to 100, each with its sacreBLEU signature.

    Raises:
        UserError: there are no lines, or not as many hypotheses as references.
    """
    check_lengths(len(hypotheses), len(references))
    tokenised = tokenizers.asked == "none"  # silences sacreBLEU's warning about tokenised text
    metrics = {"bleu": BLEU(tokenize=tokenizers.asked, force=tokenised)}
    if tokenizers.default != tokenizers.asked:
        metrics["bleu_default"] = BLEU(tokenize=tokenizers.default, force=tokenised)
    scores = dict[str, Any]()
    for name, metric in {**metrics, "chrf": CHRF()}.items():
        scores[name] = metric.corpus_score(hypotheses, [references]).score
        scores[f"{name}_signature"] = str(metric.get_signature())
    return scores
