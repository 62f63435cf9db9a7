# SPDX-License-Identifier: Apache-2.0
"""What the page shows of some sentences, as values for JSON.

Numbers are whole, to keep the page small and to let it compute what Python would: probabilities
and thresholds in units of 1 / PROBABILITY, log-likelihoods of 1 / LOG_LIKELIHOOD.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dat_jax.config import DecodingConfig
from dat_jax.config.schema import require
from dat_jax.data.vocabulary import Vocabularies
from dat_jax.decoding.search import search
from dat_jax.decoding.trained import TrainedModel
from dat_jax.decoding.translator import cut_source
from dat_jax.evaluation.forced import longest
from dat_jax.exits.questions import Rule
from dat_jax.explore.depths import Depths, depths_of

PROBABILITY = 100_000  # as fine as tuned thresholds
LOG_LIKELIHOOD = 10_000
_UNLIKELY = 0.005  # of the likeliest tokens, those below are left out, but for the first


class Sentence(NamedTuple):
    """A sentence to show."""

    line: int  # its number in the text, from 1
    source: str
    reference: str | None


def collect(
    trained: TrainedModel, rule: Rule, decoding: DecodingConfig, sentences: Sequence[Sentence]
) -> dict[str, Any]:
    """Translates sentences and runs the translations, and the references, through all exits.

    Args:
        trained: the model, with vocabularies and all exits.
        rule: when tokens of the translations exit.
        decoding: how to search.
        sentences: those to show, not blank; all have references, or none has.

    Returns:
        `pieces`, of the target, and `sentences`, which name pieces by their places there.

    Raises:
        UserError: a sentence does not fit into memory.
    """
    vocabularies = trained.vocabularies
    assert vocabularies is not None
    whole = vocabularies.source.encode([sentence.source for sentence in sentences])
    sources = [cut_source(ids, decoding) for ids in whole]
    references = [sentence.reference for sentence in sentences if sentence.reference is not None]
    given = vocabularies.target.encode(references)
    _check_lengths(trained, sentences, sources)
    _check_lengths(trained, sentences[: len(given)], given)
    hypotheses = search(trained, rule, sources, decoding).hypotheses
    translated = [list(hypothesis.tokens) for hypothesis in hypotheses]
    table = _Table(vocabularies)
    shown: list[dict[str, Any]] = [
        {
            "line": sentence.line,
            "source": sentence.source,
            "text": vocabularies.target.decode(hypothesis.tokens),
            "exits": hypothesis.exits,
            "translation": table.tokens(ids, depths, depths.agreement),
        }
        for sentence, hypothesis, ids, depths in zip(
            sentences, hypotheses, translated, depths_of(trained, sources, translated), strict=True
        )
    ]
    for sentence, ids, depths, reference in zip(
        shown, given, depths_of(trained, sources, given) if given else (), references, strict=False
    ):
        sentence["reference_text"] = reference
        sentence["reference"] = table.tokens(ids, depths, depths.oracle)
    return {"pieces": table.pieces, "sentences": shown}


def _check_lengths(
    trained: TrainedModel, sentences: Sequence[Sentence], ids: Sequence[Sequence[int]]
) -> None:
    """Makes sure that one teacher-forced pass fits into memory."""
    most = longest(trained)
    for sentence, tokens in zip(sentences, ids, strict=True):
        require(
            len(tokens) <= most,
            f"line {sentence.line} has {len(tokens):,} pieces and {most:,} fit into memory: "
            "split or remove it",
        )


class _Table:
    """The pieces that a page names, each once."""

    def __init__(self, vocabularies: Vocabularies) -> None:
        """Starts without pieces."""
        self._vocabulary, self._places = vocabularies.target, dict[int, int]()

    @property
    def pieces(self) -> list[str]:
        """All pieces that were named, in the order of their places."""
        return self._vocabulary.pieces(list(self._places))

    def tokens(self, ids: Sequence[int], depths: Depths, oracle: np.ndarray) -> dict[str, Any]:
        """Returns the tokens of a translation, each value by token and then by depth. `likeliest`
        alternates pieces and their probabilities."""
        probabilities = _whole(depths.probabilities, PROBABILITY)
        likeliest = [
            [
                self._alternating(depths.likeliest[depth, position], row[position])
                for depth, row in enumerate(probabilities)
            ]
            for position in range(len(ids))
        ]
        return {
            "pieces": [self._place(index) for index in ids],
            "oracle": oracle.tolist(),
            "token_ll": _whole(depths.token_ll, LOG_LIKELIHOOD).T.tolist(),
            "halting": _whole(depths.halting, PROBABILITY).T.tolist(),
            "likeliest": likeliest,
        }

    def _alternating(self, tokens: np.ndarray, probabilities: np.ndarray) -> list[int]:
        pairs = zip(tokens.tolist(), probabilities.tolist(), strict=True)
        return [
            number
            for rank, (token, probability) in enumerate(pairs)
            if rank == 0 or probability >= _UNLIKELY * PROBABILITY
            for number in (self._place(token), probability)
        ]

    def _place(self, index: int) -> int:
        return self._places.setdefault(index, len(self._places))


def _whole(values: np.ndarray, units: int) -> np.ndarray:
    return np.rint(values.astype(np.float64) * units).astype(np.int64)
