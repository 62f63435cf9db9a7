# SPDX-License-Identifier: Apache-2.0
"""Text scores compared with sacreBLEU and with known values."""

import math
from collections import Counter

import pytest
import sacrebleu

from configs import iwslt14_de_en, iwslt14_exits
from dat_jax.config import Config
from dat_jax.errors import UserError
from dat_jax.evaluation.scores import Tokenizers, score, tokenizers_of
from tests.tiny import tiny_config

HYPOTHESES = ["the cat sat on the mat today .", "there are twenty-three of them"]
REFERENCES = ["the cat sat on a mat today .", "there are twenty-three of those"]
USUAL = Tokenizers("13a", "13a")


def test_equal_text_scores_100():
    scores = score(REFERENCES, REFERENCES, USUAL)
    assert scores["bleu"] == pytest.approx(100)
    assert scores["chrf"] == pytest.approx(100)


def test_scores_equal_sacrebleu():
    scores = score(HYPOTHESES, REFERENCES, USUAL)
    assert scores["bleu"] == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert scores["chrf"] == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score
    assert 0 < scores["bleu"] < 100
    assert 0 < scores["chrf"] < 100


def test_hypotheses_and_references_are_not_swapped():
    short = [line.rsplit(" ", 2)[0] for line in REFERENCES]
    assert score(short, REFERENCES, USUAL)["chrf"] < score(REFERENCES, short, USUAL)["chrf"]


def test_signatures_name_the_settings_and_the_version():
    scores = score(HYPOTHESES, REFERENCES, USUAL)
    assert scores["bleu_signature"].startswith(
        "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:"
    )
    assert scores["chrf_signature"].startswith(
        "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version"
    )


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [("zh", "zh"), ("zh_CN", "zh"), ("ja", "char"), ("ko-KR", "char"), ("en", "13a")],
)
def test_the_tokenizer_follows_the_target_language_unless_named(language, tokenizer):
    config = tiny_config(data={"target_language": language})
    assert tokenizers_of(config, config.decoding) == (tokenizer, tokenizer)
    named = tiny_config(decoding={"bleu_tokenizer": "none"})
    assert tokenizers_of(config, named.decoding) == ("none", tokenizer)
    scores = score(HYPOTHESES, REFERENCES, Tokenizers(tokenizer, tokenizer))
    assert f"tok:{tokenizer}|" in scores["bleu_signature"]
    assert "bleu_default" not in scores


def multi_bleu(hypotheses: list[str], references: list[str]) -> float:
    """Tokenised BLEU by its formula, as papers of that time report it."""
    matches, totals, lengths = [0] * 4, [0] * 4, [0, 0]
    for lines in zip(hypotheses, references, strict=True):
        tokens = [line.split() for line in lines]
        for size in range(1, 5):
            grams = [Counter(zip(*(t[i:] for i in range(size)), strict=False)) for t in tokens]
            matches[size - 1] += (grams[0] & grams[1]).total()
            totals[size - 1] += grams[0].total()
        lengths = [length + len(t) for length, t in zip(lengths, tokens, strict=True)]
    brevity = min(0.0, 1 - lengths[1] / lengths[0])
    precisions = [math.log(m / n) for m, n in zip(matches, totals, strict=True)]
    return 100 * math.exp(brevity + sum(precisions) / 4)


def test_tokenised_bleu_uses_tokens_as_given_and_adds_default_bleu(caplog):
    """SacreBLEU must not warn about tokenised text, which is intended here."""
    hypotheses = [f"{line} it &apos;s a U.S . - based one ( 3.5 %) ." for line in HYPOTHESES] * 60
    references = [f"{line} it &apos;s one of the U.S . ( 3.5 % )." for line in REFERENCES] * 60
    scores = score(hypotheses, references, Tokenizers("none", "13a"))
    assert scores["bleu"] == pytest.approx(multi_bleu(hypotheses, references))
    assert "tok:none|" in scores["bleu_signature"]
    assert not caplog.records
    usual = score(hypotheses, references, USUAL)
    assert caplog.records
    assert scores["bleu_default"] == usual["bleu"] != scores["bleu"]
    assert scores["bleu_default_signature"] == usual["bleu_signature"]
    assert scores["chrf"] == usual["chrf"]


@pytest.mark.parametrize("module", [iwslt14_de_en, iwslt14_exits])
def test_the_iwslt_configs_use_tokenised_bleu_like_the_paper(module):
    config = Config.from_dict(module.get_config().to_dict())
    assert tokenizers_of(config, config.decoding) == ("none", "13a")


@pytest.mark.parametrize(
    ("tokenizer", "hypothesis", "reference"),
    [
        ("zh", "我们昨天去了北京大学。", "我们昨天去过北京大学。"),
        ("char", "私たちは昨日東京へ行った。", "私たちは昨日東京に行った。"),
    ],
)
def test_text_without_spaces_gets_a_meaningful_score(tokenizer, hypothesis, reference):
    assert score([hypothesis], [reference], Tokenizers(tokenizer, tokenizer))["bleu"] > 50
    assert score([hypothesis], [reference], USUAL)["bleu"] < 1


def test_the_error_for_unequal_lengths_gives_both_counts():
    with pytest.raises(UserError, match="2 sentences but 1 references: give the reference file"):
        score(HYPOTHESES, REFERENCES[:1], USUAL)


def test_scoring_no_sentences_is_refused():
    with pytest.raises(UserError, match="no sentences to score"):
        score([], [], USUAL)
