# SPDX-License-Identifier: Apache-2.0
"""Text normalization: folded, kept and invisible characters."""

import io
import itertools
import unicodedata
from typing import get_args

import hypothesis.strategies as st
import pytest
import sentencepiece
from hypothesis import given

from dat_jax.config import Normalization
from dat_jax.data.normalization import normalizer
from dat_jax.data.sources.generated import GeneratedCorpus
from dat_jax.data.vocabulary import Vocabulary, is_blank, train_vocabulary

FOLDED = {"wait…": "wait...", "20 m²": "20 m2", "Word™": "WordTM", "你好，世界！": "你好,世界!"}
INVISIBLE = [
    "",
    " ",
    "\t",
    "\u200b",
    "\ufeff",
    "\u200e\u200f",
    "\x01\x7f",
    "\u2028",
    "\u3000\u00a0",
    "\ufe0f",
    "\u034f",
    "\u3164",
    "\u2800",
    "\u115f\u1160 \uffa0",
    "\u180b\u17b5",
    "\U000e0100\U000e01ef",
    "\u2065",
]
VISIBLE = ["a", "。", "\u0301", "\u0600", "\u2801", "❤\ufe0f", "ᅠ가", "👍", "\ue000"]


@pytest.fixture(scope="module")
def vocabulary() -> bytes:
    sentences = itertools.chain(*GeneratedCorpus(60, seed=0).pairs("train"))
    return train_vocabulary(sentences, 100, "bpe")


@pytest.mark.parametrize("written", FOLDED)
def test_compatibility_characters_are_kept_or_folded(written: str):
    assert normalizer("nfc")(written) == written
    assert normalizer("none")(written) == written
    assert normalizer("nmt_nfkc")(written) == FOLDED[written]


@pytest.mark.parametrize("line", INVISIBLE, ids=ascii)
def test_invisible_characters_are_removed(line: str):
    assert {normalizer(form)(line) for form in get_args(Normalization)} == {""}


@pytest.mark.parametrize("line", VISIBLE, ids=ascii)
def test_visible_characters_are_kept(line: str):
    assert all(normalizer(form)(line) for form in get_args(Normalization))


@pytest.mark.parametrize("line", INVISIBLE, ids=ascii)
@pytest.mark.parametrize("form", get_args(Normalization))
def test_an_invisible_line_is_blank(form: Normalization, line: str, vocabulary: bytes):
    (ids,) = Vocabulary(vocabulary, form).encode([line])
    assert is_blank(ids)


def test_joiners_within_words_are_kept():
    """Without joiners, Persian words change meaning and a family emoji becomes three people."""
    for text in ("می\u200cخواهم", "👨\u200d👩\u200d👧"):
        assert normalizer("nfc")(text) == text


@given(st.text())
def test_nfc_changes_only_composition_and_spaces(line: str):
    normal = normalizer("nfc")(line)
    assert normal in ("", " ".join(unicodedata.normalize("NFC", line).split()))
    assert normalizer("nfc")(normal) == normal


def test_a_new_vocabulary_encodes_like_an_old_one():
    """Old vocabularies let sentencepiece normalise; new ones get normalised text."""
    sentences = [*itertools.chain(*GeneratedCorpus(300, seed=0).pairs("train")), *FOLDED]
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=file,
        vocab_size=200,
        model_type="bpe",
        character_coverage=0.99999,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        minloglevel=2,
    )
    old = Vocabulary(file.getvalue())
    normal = map(normalizer("nmt_nfkc"), sentences)
    new = Vocabulary(train_vocabulary(normal, 200, "bpe"), "nmt_nfkc")
    assert new.fingerprint == old.fingerprint
    odd = ["  zwei\u00a0 drei ", "zwei\u200bdrei", "e\u0301t\u00e9", "\ufeffeins", "\u200b"]
    assert new.encode(sentences + odd) == old.encode(sentences + odd)


@given(st.text(max_size=30).filter(lambda line: normalizer("nmt_nfkc")(line) != ""))
def test_a_model_with_the_normalisation_inside_reads_lines_as_ours_does(
    vocabulary: bytes, line: str
):
    ours = Vocabulary(vocabulary, "nmt_nfkc")
    alone = sentencepiece.SentencePieceProcessor(model_proto=ours.self_normalizing)
    for text in (line, f"  {line}\u3000", *FOLDED):
        assert [alone.encode(text, add_eos=True)] == ours.encode([text])


@pytest.mark.parametrize("form", ["nfc", "none"])
def test_other_forms_leave_the_model_as_it_is(form: Normalization, vocabulary: bytes):
    assert Vocabulary(vocabulary, form).self_normalizing == vocabulary
