# SPDX-License-Identifier: Apache-2.0
"""The generated corpus is reproducible, its splits are disjoint, and its wording is right."""

import itertools
import re
from random import Random

import pytest

from dat_jax.data.sources import phrases
from dat_jax.data.sources.generated import GeneratedCorpus


def corpus(pairs: int, seed: int) -> dict[str, list[tuple[str, str]]]:
    source = GeneratedCorpus(pairs, seed)
    return {split: list(source.pairs(split)) for split in ("train", "valid", "test")}


def test_equal_seeds_give_equal_corpora() -> None:
    assert corpus(300, seed=5) == corpus(300, seed=5)
    assert corpus(300, seed=5) != corpus(300, seed=6)


def test_the_corpus_of_a_seed_never_changes() -> None:
    """Results name a seed, so a change of its corpus must be noticed."""
    assert next(GeneratedCorpus(10, seed=0).pairs("valid")) == (
        "statt am siebenundzwanzigsten Juli zweitausendfünfundvierzig "
        "nun achthundertneunzehn US-Dollar",
        "now eight hundred and nineteen US dollars "
        "instead of on the twenty-seventh of July twenty forty-five",
    )


def test_sizes() -> None:
    assert [len(pairs) for pairs in corpus(50, seed=0).values()] == [50, 20, 20]
    assert [len(pairs) for pairs in corpus(400, seed=0).values()] == [400, 40, 40]


def test_splits_share_no_line_on_either_side() -> None:
    splits = corpus(2_000, seed=1)
    for one, other in itertools.combinations(splits.values(), 2):
        for side in (0, 1):
            assert not {pair[side] for pair in one} & {pair[side] for pair in other}


def test_german_determines_english() -> None:
    english: dict[str, str] = {}
    for pair in itertools.chain.from_iterable(corpus(2_000, seed=2).values()):
        assert english.setdefault(pair[0], pair[1]) == pair[1]


def test_lines_contain_only_words() -> None:
    for german, english in corpus(2_000, seed=3)["train"]:
        assert re.fullmatch(r"[A-Za-zÄÖÜäöüß, -]+", german)
        assert re.fullmatch(r"[A-Za-z', -]+", english)


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    random = Random(0)
    return dict(kind(random) for _ in range(7_000) for kind in phrases.KINDS)


@pytest.mark.parametrize(
    ("german", "english"),
    [
        ("am dreiundzwanzigsten November", "on the twenty-third of November"),
        ("um halb vier nachmittags", "at half past three in the afternoon"),
        ("um fünfzehn Uhr dreißig", "at half past three in the afternoon"),
        ("um fünf vor halb eins nachts", "at twenty-five past twelve in the morning"),
        ("um Viertel vor sechs morgens", "at a quarter to six in the morning"),
        ("um Viertel nach sechs morgens", "at a quarter past six in the morning"),
        ("um ein Uhr", "at one o'clock in the morning"),
        ("im Jahr neunzehnhundertvierundachtzig", "in nineteen eighty-four"),
        ("vor drei Tagen", "three days ago"),
        ("in drei Tagen", "in three days"),
        ("drei Stunden lang", "for three hours"),
        ("zum zwölften Mal", "for the twelfth time"),
        ("dreiundzwanzig", "twenty-three"),
    ],
)
def test_wording_of_single_phrases(drawn: dict[str, str], german: str, english: str) -> None:
    assert drawn[german] == english
