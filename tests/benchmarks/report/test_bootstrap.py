# SPDX-License-Identifier: Apache-2.0
"""BLEU from counts of sentences equals sacreBLEU's; bootstrap intervals; the hull of cuts."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from benchmarks.bleu_counts import count, pack, unpack
from benchmarks.report.bootstrap import (
    bleu,
    draws_of_bleu,
    draws_of_median,
    interval,
)
from benchmarks.report.costs import Cut, best_within

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
    """Returns hypotheses with this share of wrong words, and the references."""
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


def difference_of(*systems: np.ndarray) -> tuple[float, float, float]:
    """Returns the first system's BLEU minus the second's."""
    one, other = draws_of_bleu(systems)
    return interval(one - other)


def test_a_system_does_not_differ_from_itself():
    counts = count(*texts(0, 0.3), "13a")
    assert difference_of(counts, counts) == (0, 0, 0)


def test_an_interval_is_around_the_difference_and_narrows_with_more_sentences():
    few, many = (
        difference_of(*(count(*texts(0, wrong, n), "13a") for wrong in (0.2, 0.3)))
        for n in (40, 640)
    )
    for value, low, high in (few, many):
        assert low < value < high
    assert many[1] > 0
    assert many[2] - many[1] < (few[2] - few[1]) / 2


def test_the_first_draw_is_the_text_itself():
    counts = count(*texts(0, 0.3), "13a")
    (draws,) = draws_of_bleu([counts])
    assert len(draws) == 1_001
    assert draws[0] == bleu(counts.sum(axis=0))
    assert len(set(draws)) > 500


def test_a_draw_has_the_same_sentences_for_both_systems():
    counts = count(*texts(0, 0.3), "13a")
    one, same = draws_of_bleu([counts, counts])
    np.testing.assert_array_equal(one, same)


def test_systems_of_different_texts_are_not_compared():
    with pytest.raises(AssertionError, match="different texts"):
        draws_of_bleu([count(*texts(0, 0.3, n), "13a") for n in (5, 6)])


def test_a_median_varies_as_its_repetitions_do():
    draws = draws_of_median([3.0, 1.0, 2.0], "a")
    assert draws[0] == 2
    shares = [np.mean(draws[1:] == value) for value in (1, 2, 3)]
    assert shares == pytest.approx([7 / 27, 13 / 27, 7 / 27], abs=0.05)
    assert set(draws_of_median([1.5], "a")) == set(draws_of_median([1.5] * 3, "a")) == {1.5}
    np.testing.assert_array_equal(draws, draws_of_median([3.0, 1.0, 2.0], "a"))
    assert np.mean(draws == draws_of_median([3.0, 1.0, 2.0], "b")) < 0.6


def test_the_best_of_cuts_is_their_upper_convex_hull():
    costs, scores = [1, 2, 3, 4, 6], [10, 11, 20, 19, 22]
    cuts = [
        Cut(np.full(1, cost), np.full(1, score)) for cost, score in zip(costs, scores, strict=True)
    ]
    expected = {0.9: -np.inf, 1: 10, 2: 15, 2.5: 17.5, 3: 20, 4: 20 + 2 / 3, 6: 22, 9: 22}
    for order in (cuts, cuts[::-1]):
        for cost, best in expected.items():
            assert best_within(np.full(1, cost), order)[0] == pytest.approx(best)
