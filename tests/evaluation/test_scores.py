# SPDX-License-Identifier: Apache-2.0
"""Text scores against sacreBLEU's own and known values."""

import pytest
import sacrebleu

from dat_jax.errors import UserError
from dat_jax.evaluation.scores import score, tokenizer_of
from tests.tiny import tiny_config

HYPOTHESES = ["the cat sat on the mat today .", "there are twenty-three of them"]
REFERENCES = ["the cat sat on a mat today .", "there are twenty-three of those"]


def test_equal_text_scores_a_hundred():
    scores = score(REFERENCES, REFERENCES, "13a")
    assert scores.bleu == pytest.approx(100)
    assert scores.chrf == pytest.approx(100)


def test_scores_are_those_of_sacrebleu():
    scores = score(HYPOTHESES, REFERENCES, "13a")
    assert scores.bleu == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert scores.chrf == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score
    assert 0 < scores.bleu < 100
    assert 0 < scores.chrf < 100


def test_hypotheses_and_references_are_told_apart():
    short = [line.rsplit(" ", 2)[0] for line in REFERENCES]
    assert score(short, REFERENCES, "13a").chrf < score(REFERENCES, short, "13a").chrf


def test_signatures_name_the_settings_and_the_version():
    scores = score(HYPOTHESES, REFERENCES, "13a")
    assert scores.bleu_signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert scores.chrf_signature.startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version")


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [("zh", "zh"), ("zh_CN", "zh"), ("ja", "char"), ("ko-KR", "char"), ("en", "13a")],
)
def test_the_tokenizer_follows_from_the_target_language_unless_it_is_named(language, tokenizer):
    config = tiny_config(data={"target_language": language})
    assert tokenizer_of(config, config.decoding) == tokenizer
    named = tiny_config(decoding={"bleu_tokenizer": "none"})
    assert tokenizer_of(config, named.decoding) == "none"
    assert f"tok:{tokenizer}|" in score(HYPOTHESES, REFERENCES, tokenizer).bleu_signature


@pytest.mark.parametrize(
    ("tokenizer", "hypothesis", "reference"),
    [
        ("zh", "我们昨天去了北京大学。", "我们昨天去过北京大学。"),
        ("char", "私たちは昨日東京へ行った。", "私たちは昨日東京に行った。"),
    ],
)
def test_nearly_right_text_without_blanks_has_a_score(tokenizer, hypothesis, reference):
    assert score([hypothesis], [reference], tokenizer).bleu > 50
    assert score([hypothesis], [reference], "13a").bleu < 1


def test_unequal_lengths_are_refused_with_both_counts():
    with pytest.raises(UserError, match="2 sentences but 1 references: give the reference file"):
        score(HYPOTHESES, REFERENCES[:1], "13a")


def test_nothing_to_score_is_refused():
    with pytest.raises(UserError, match="no sentences to score"):
        score([], [], "13a")
