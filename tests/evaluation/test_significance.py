# SPDX-License-Identifier: Apache-2.0
"""Significance tests: equal systems, random differences and a clearly better system."""

from random import Random
from typing import get_args

import pytest

from dat_jax.errors import UserError
from dat_jax.evaluation.scores import Tokenizers, score
from dat_jax.evaluation.significance import Test, paired

WORDS = [f"{first}{second}" for first in "bdfgk" for second in ("ado", "eni", "ira", "oru")]


def text(lines: int) -> list[str]:
    random = Random(0)
    return [" ".join(random.choices(WORDS, k=12)) for _ in range(lines)]


def worse(lines: list[str], share: float, seed: int) -> list[str]:
    """The lines with a share of their words replaced."""
    random = Random(seed)
    return [
        " ".join(random.choice(WORDS) if random.random() < share else word for word in line.split())
        for line in lines
    ]


REFERENCES = text(60)
BASELINE = worse(REFERENCES, 0.3, seed=1)


@pytest.mark.parametrize("test", get_args(Test))
def test_only_a_real_difference_is_significant(test: Test):
    systems = {
        "baseline": BASELINE,
        "equal": list(BASELINE),
        "other errors": worse(REFERENCES, 0.3, seed=2),
        "better": worse(REFERENCES, 0.1, seed=3),
    }
    rows = paired(systems, REFERENCES, test=test)
    assert [row["system"] for row in rows] == list(systems)
    baseline, equal, chance, better = rows
    for key in ("bleu", "chrf"):
        assert baseline[f"{key}_difference"] is baseline[f"{key}_p"] is None
        assert (equal[f"{key}_difference"], equal[f"{key}_p"]) == (0, 1)
        assert 0.05 < chance[f"{key}_p"] < 1
        assert better[f"{key}_p"] < 0.01
        assert better[f"{key}_difference"] == better[key] - baseline[key] > 10
        for row in rows:
            assert abs(row[key] - row[f"{key}_mean"]) < row[f"{key}_interval"] < 10
            assert f"{test}:1000" in row[f"{key}_signature"]
            assert "seed:12345" in row[f"{key}_signature"]


@pytest.mark.parametrize("tokenizer", ["13a", "none"])
def test_scores_equal_those_of_summaries(tokenizer: str, caplog: pytest.LogCaptureFixture):
    """No warning about tokenised text if the tokenizer is none."""
    lines = [f"{line} ." for line in BASELINE * 2]
    references = [f"{line} ." for line in REFERENCES * 2]
    rows = paired({"one": lines, "two": references}, references, tokenizer)
    expected = score(lines, references, Tokenizers(tokenizer, tokenizer))
    assert (rows[0]["bleu"], rows[0]["chrf"]) == (expected["bleu"], expected["chrf"])
    assert f"tok:{tokenizer}|" in rows[0]["bleu_signature"]
    assert bool(caplog.records) == (tokenizer != "none")


def test_incomparable_systems_are_refused():
    with pytest.raises(
        UserError, match="nothing to compare: give a baseline and at least one other"
    ):
        paired({"one": BASELINE}, REFERENCES)
    with pytest.raises(UserError, match="59 sentences but 60 references"):
        paired({"one": BASELINE, "two": BASELINE[1:]}, REFERENCES)
