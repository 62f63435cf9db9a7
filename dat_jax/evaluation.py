# SPDX-License-Identifier: Apache-2.0
"""Translation quality as sacreBLEU measures it, on detokenised text, beside what it cost."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sacrebleu.metrics import BLEU, CHRF

from dat_jax.config import DecodingConfig, write_text
from dat_jax.decoding.translate import Translations, Translator
from dat_jax.errors import UserError
from dat_jax.exits.policies import Policy
from dat_jax.summary import Tally, describe_policy
from dat_jax.workdir import TrainedModel


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


def evaluate(
    trained: TrainedModel,
    policy: Policy,
    decoding: DecodingConfig,
    split: str,
    name: str | None = None,
) -> tuple[Translations, dict[str, Any]]:
    """Translates a split by a policy, scores it, and returns the translations and all figures.

    `policy` takes the place of that of `decoding`; `name` is how it was asked for.
    """
    decoding = dataclasses.replace(decoding, policy=name or str(policy))
    translator = Translator(trained.model, trained.params, trained.dataset, policy, decoding)
    sources, references = trained.dataset.text(split)
    translations = translator.translate(sources, f"{split}, {describe_policy(translator)}")
    scores = score([sentence.text for sentence in translations.sentences], references)
    tally = Tally(trained, translator)
    tally.add(translations)
    return translations, dataclasses.asdict(scores) | tally.summary()


class ResultsWriter:
    """Writes `hypotheses.txt`, `exits.jsonl` (each line's tokens and exits) and `summary.json`.

    Translations are written as they come; whatever was there before stays until all is finished.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = ("hypotheses.txt", "exits.jsonl")

    def __enter__(self) -> "ResultsWriter":
        self._folder.mkdir(parents=True, exist_ok=True)
        self._hypotheses, self._exits = (
            self._unfinished(name).open("w", encoding="utf-8", newline="\n") for name in self._names
        )
        return self

    def __exit__(self, *_: object) -> None:
        for name, file in zip(self._names, (self._hypotheses, self._exits), strict=True):
            file.close()
            self._unfinished(name).unlink(missing_ok=True)

    def add(self, translations: Translations) -> None:
        """Writes these too."""
        for sentence in translations.sentences:
            self._hypotheses.write(sentence.text + "\n")
            line = {
                "tokens": sentence.pieces,
                "exits": sentence.exits,
                "score": sentence.score,
            }
            self._exits.write(json.dumps(line, ensure_ascii=False) + "\n")

    def finish(self, summary: dict[str, Any]) -> None:
        """Puts everything in its place."""
        for name, file in zip(self._names, (self._hypotheses, self._exits), strict=True):
            file.close()
            self._unfinished(name).replace(self._folder / name)
        text = json.dumps(summary, indent=2, ensure_ascii=False)
        write_text(self._folder / "summary.json", text + "\n")

    def _unfinished(self, name: str) -> Path:
        return self._folder / f"{name}.unfinished"
