# SPDX-License-Identifier: Apache-2.0
"""Text scores against sacreBLEU's own and known values; results that are whole or not written."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import sacrebleu

from dat_jax.decoding.translate import Translation, Translations
from dat_jax.decoding.work import Work
from dat_jax.errors import UserError
from dat_jax.evaluation import ResultsWriter, score

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


def translations(*sentences: Translation) -> Translations:
    nothing = Work(*(np.zeros(3, np.int64) for _ in Work._fields))
    return Translations(sentences, 0.0, nothing, Counter(), 0)


EIGHT = Translation("acht \u2028 ü", ("▁acht", "</s>"), (1, 2), -0.5, 2)
EMPTY = Translation("", (), (), 0.0, 1)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_results_are_a_line_for_each_sentence_in_the_order_in_which_they_came(tmp_path: Path):
    folder = tmp_path / "new" / "folder"
    with ResultsWriter(folder) as writer:
        writer.add(translations(EIGHT, EMPTY))
        assert not (folder / "hypotheses.txt").exists()
        writer.add(translations(EMPTY, EIGHT))
        writer.finish({"bleu": 1.5})
    found = contents(folder)
    assert found.keys() == {"hypotheses.txt", "exits.jsonl", "summary.json"}
    assert found["hypotheses.txt"].split("\n") == [EIGHT.text, "", "", EIGHT.text, ""]
    lines = [json.loads(line) for line in found["exits.jsonl"].split("\n")[:-1]]
    eight = {"tokens": ["▁acht", "</s>"], "exits": [1, 2], "score": -0.5}
    assert lines == [eight, *[{"tokens": [], "exits": [], "score": 0.0}] * 2, eight]
    assert json.loads(found["summary.json"]) == {"bleu": 1.5}


@pytest.mark.parametrize("breaks_off", [KeyboardInterrupt, UserError, None])
def test_results_that_are_not_finished_leave_earlier_ones(tmp_path: Path, breaks_off):
    with ResultsWriter(tmp_path) as writer:
        writer.add(translations(EIGHT))
        writer.finish({"bleu": 1.5})
    before = contents(tmp_path)
    assert len(before) == 3

    def write_half() -> None:
        with ResultsWriter(tmp_path) as writer:
            writer.add(translations(EMPTY, EMPTY))
            assert contents(tmp_path).items() >= before.items()
            if breaks_off:
                raise breaks_off

    if breaks_off:
        with pytest.raises(breaks_off):
            write_half()
    else:
        write_half()
    assert contents(tmp_path) == before
