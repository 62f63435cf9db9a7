# SPDX-License-Identifier: Apache-2.0
"""Text scores against sacreBLEU's own and known values."""

import pytest
import sacrebleu

from dat_jax.errors import UserError
from dat_jax.evaluation.scores import score

HYPOTHESES = ["the cat sat on the mat today .", "there are twenty-three of them"]
REFERENCES = ["the cat sat on a mat today .", "there are twenty-three of those"]


def test_equal_text_scores_a_hundred():
    scores = score(REFERENCES, REFERENCES)
    assert scores.bleu == pytest.approx(100)
    assert scores.chrf == pytest.approx(100)


def test_scores_are_those_of_sacrebleu():
    scores = score(HYPOTHESES, REFERENCES)
    assert scores.bleu == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert scores.chrf == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score
    assert 0 < scores.bleu < 100
    assert 0 < scores.chrf < 100


def test_hypotheses_and_references_are_told_apart():
    short = [line.rsplit(" ", 2)[0] for line in REFERENCES]
    assert score(short, REFERENCES).chrf < score(REFERENCES, short).chrf


def test_signatures_name_the_settings_and_the_version():
    scores = score(HYPOTHESES, REFERENCES)
    assert scores.bleu_signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert scores.chrf_signature.startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version")


def test_unequal_lengths_are_refused_with_both_counts():
    with pytest.raises(UserError, match="2 sentences but 1 references: give the reference file"):
        score(HYPOTHESES, REFERENCES[:1])


def test_nothing_to_score_is_refused():
    with pytest.raises(UserError, match="no sentences to score"):
        score([], [])
