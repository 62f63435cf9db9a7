# SPDX-License-Identifier: Apache-2.0
"""Results on disk are whole or not written."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dat_jax.decoding.translator import Translation, Translations
from dat_jax.decoding.work import Work
from dat_jax.errors import UserError
from dat_jax.evaluation.results import ResultsWriter


def translations(*sentences: Translation) -> Translations:
    nothing = Work(*(np.zeros(3, np.int64) for _ in Work._fields))
    return Translations(sentences, 0.0, 0.0, nothing, Counter(), 0)


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
    written = contents(folder)
    assert written.keys() == {"hypotheses.txt", "exits.jsonl", "summary.json"}
    assert written["hypotheses.txt"].split("\n") == [EIGHT.text, "", "", EIGHT.text, ""]
    lines = [json.loads(line) for line in written["exits.jsonl"].split("\n")[:-1]]
    eight = {"tokens": ["▁acht", "</s>"], "exits": [1, 2], "score": -0.5}
    assert lines == [eight, *[{"tokens": [], "exits": [], "score": 0.0}] * 2, eight]
    assert json.loads(written["summary.json"]) == {"bleu": 1.5}


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
