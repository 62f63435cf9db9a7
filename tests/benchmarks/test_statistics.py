# SPDX-License-Identifier: Apache-2.0
"""BLEU from counts of sentences is sacreBLEU's, and intervals hold what is in them."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from benchmarks._statistics import bleu, count, difference, pack, unpack

WORDS = [
    "a",
    "small",
    "dog",
    "runs",
    "over",
    "the",
    "green",
    "grass",
    "and",
    "two",
    "men",
    "look",
    "at",
    "it",
    ".",
]


def texts(seed: int, wrong: float, sentences: int = 60) -> tuple[list[str], list[str]]:
    """Hypotheses in which so many of the references' words are others, and the references."""
    generator = np.random.default_rng(seed)
    references = [
        list(generator.choice(WORDS, generator.integers(3, 15))) for _ in range(sentences)
    ]
    hypotheses = [
        " ".join("wrong" if generator.random() < wrong else word for word in words)
        for words in references
    ]
    return hypotheses, [" ".join(words) for words in references]


@pytest.mark.parametrize("tokenizer", ["13a", "none", "char"])
@pytest.mark.parametrize("wrong", [0.0, 0.2, 0.9])
def test_the_sums_of_counts_give_sacrebleus_score(tokenizer: str, wrong: float):
    hypotheses, references = texts(0, wrong)
    hypotheses[0] = ""
    counts = count(hypotheses, references, tokenizer)
    expected = BLEU(tokenize=tokenizer).corpus_score(hypotheses, [references]).score
    assert bleu(counts.sum(axis=0)) == pytest.approx(expected, abs=1e-9)


def test_counts_are_read_back_as_they_were_packed():
    counts = count(*texts(0, 0.3), "13a")
    np.testing.assert_array_equal(unpack(pack(counts)), counts)


def test_a_system_does_not_differ_from_itself():
    counts = count(*texts(0, 0.3), "13a")
    assert difference([counts, counts], [1, -1]) == (0, 0, 0)


def test_an_interval_is_around_the_difference_and_narrows_with_more_sentences():
    few, many = (
        difference([count(*texts(0, wrong, n), "13a") for wrong in (0.2, 0.3)], [1, -1])
        for n in (40, 640)
    )
    for interval in (few, many):
        assert interval.low < interval.value < interval.high
    assert many.low > 0
    assert many.high - many.low < (few.high - few.low) / 2


def test_sentences_are_drawn_alike_for_both():
    """Of a system that is better by the same in each sentence, the difference hardly varies."""
    hypotheses, references = texts(0, 0.3)
    counts = count(hypotheses, references, "13a")
    one = difference([counts], [1])
    two = difference([counts, counts], [1, -0.5])
    assert two.value == pytest.approx(one.value / 2)
    assert two.high - two.low == pytest.approx((one.high - one.low) / 2)


def test_systems_of_several_texts_are_not_compared():
    with pytest.raises(AssertionError, match="several texts"):
        difference([count(*texts(0, 0.3, n), "13a") for n in (5, 6)], [1, -1])
