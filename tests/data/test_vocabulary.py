# SPDX-License-Identifier: Apache-2.0
"""Vocabularies: round trips, special ids, and errors that suggest a size that works."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from dat_jax.data.sources.generated import GeneratedCorpus
from dat_jax.data.vocabulary import BOS, EOS, PAD, UNK, Vocabulary, train_vocabulary
from dat_jax.errors import UserError

SENTENCES = list(itertools.chain.from_iterable(GeneratedCorpus(400, seed=0).pairs("train")))


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def model(request: pytest.FixtureRequest) -> bytes:
    return train_vocabulary(SENTENCES, 200, request.param)


def test_round_trip(model: bytes) -> None:
    vocabulary = Vocabulary(model)
    assert vocabulary.size == 200
    encoded = vocabulary.encode(SENTENCES)
    assert [vocabulary.decode(ids) for ids in encoded] == SENTENCES
    for ids in encoded:
        assert ids[-1] == EOS and ids.count(EOS) == 1
        assert not {PAD, UNK, BOS} & set(ids)


def test_special_ids(model: bytes) -> None:
    assert (PAD, UNK, BOS, EOS) == (0, 1, 2, 3)
    assert Vocabulary(model).pieces([PAD, UNK, BOS, EOS]) == ["<pad>", "<unk>", "<s>", "</s>"]


def test_decode_stops_at_the_first_eos_and_drops_padding(model: bytes) -> None:
    vocabulary = Vocabulary(model)
    (ids,) = vocabulary.encode(["drei Tage"])
    assert vocabulary.decode([BOS, PAD, *ids, *ids, PAD]) == "drei Tage"


def test_unknown_characters_are_visible_in_the_text(model: bytes) -> None:
    vocabulary = Vocabulary(model)
    (ids,) = vocabulary.encode(["drei Ω"])
    assert UNK in ids and "⁇" in vocabulary.decode(ids)


def test_pieces_spell_the_text(model: bytes) -> None:
    vocabulary = Vocabulary(model)
    (ids,) = vocabulary.encode(["drei Tage"])
    assert "".join(vocabulary.pieces(ids)) == "▁drei▁Tage</s>"


def test_training_is_deterministic() -> None:
    assert train_vocabulary(SENTENCES, 150, "bpe") == train_vocabulary(SENTENCES, 150, "bpe")


def test_training_uses_the_first_sentences_if_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dat_jax.data.vocabulary._MOST_SENTENCES", len(SENTENCES) // 2)
    first = SENTENCES[: len(SENTENCES) // 2]
    assert train_vocabulary(SENTENCES, 150, "bpe") == train_vocabulary(first, 150, "bpe")


def test_fingerprints_distinguish_vocabularies(model: bytes) -> None:
    assert Vocabulary(model).fingerprint == Vocabulary(model).fingerprint
    other = Vocabulary(train_vocabulary(SENTENCES, 201, "bpe"))
    assert other.fingerprint != Vocabulary(model).fingerprint


@pytest.mark.parametrize("pieces", ["bpe", "unigram"])
def test_the_error_for_a_large_size_names_the_largest(pieces: Literal["unigram", "bpe"]) -> None:
    with pytest.raises(UserError, match=r"set it to \d+ or less") as caught:
        train_vocabulary(SENTENCES, 50_000, pieces)
    largest = int(re.findall(r"\d+", str(caught.value))[-1])
    assert Vocabulary(train_vocabulary(SENTENCES, largest, pieces)).size == largest


def test_the_error_for_a_small_size_names_the_smallest() -> None:
    with pytest.raises(UserError, match=r"set it to \d+ or more"):
        train_vocabulary(SENTENCES, 10, "bpe")


def test_no_text() -> None:
    with pytest.raises(UserError, match="has only blank lines"):
        train_vocabulary(["", ""], 10, "bpe")


@pytest.mark.parametrize("pieces", ["bpe", "unigram"])
@pytest.mark.parametrize("line", ["шишка " * 1_000, "шишка" * 1_000, "шишка\u2585шишка"])
def test_lines_that_sentencepiece_would_skip_are_used(
    line: str, pieces: Literal["unigram", "bpe"]
) -> None:
    without = Vocabulary(train_vocabulary(SENTENCES, 150, pieces))
    vocabulary = Vocabulary(train_vocabulary([*SENTENCES, line], 150, pieces))
    (ids,) = vocabulary.encode(["шишка"])
    assert UNK not in ids
    assert UNK in without.encode(["шишка"])[0]


def test_an_error_in_the_text_propagates() -> None:
    def sentences() -> Iterator[str]:
        yield "drei Tage"
        raise UserError("line 2 is bad")

    with pytest.raises(UserError, match="line 2 is bad"):
        train_vocabulary(sentences(), 20, "bpe")


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        Vocabulary.load(tmp_path / "joint.model")
    (tmp_path / "joint.model").write_bytes(b"no model")
    with pytest.raises(UserError, match="is damaged"):
        Vocabulary.load(tmp_path / "joint.model")
