# SPDX-License-Identifier: Apache-2.0
"""The rule of `docs/tutorial_exit_rule.md` decodes as the page says."""

import re
from pathlib import Path
from typing import Any

import pytest

from dat_jax import TranslationModel
from dat_jax.data.vocabulary import EOS
from dat_jax.decoding.trained import TrainedModel
from tests.decoding.lively import PRE, make_model
from tests.tiny import tiny_config

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tutorial_exit_rule.md"
SOURCES = [[5, 7, 4, 9, EOS], [8, 8, EOS], [6, 4, 10, 8, EOS]]
MOST_LINES = 90


@pytest.fixture(scope="module")
def rule() -> Any:
    """The class defined by the page's first Python block."""
    code, *_ = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {"__name__": "tutorial"}
    exec(compile(code, str(PAGE), "exec"), names)
    return names["Entropy"]


@pytest.fixture(scope="module")
def model() -> TranslationModel:
    decoding = {"beam_size": 2, "max_length_ratio": 1.0, "max_length_extra": 4}
    config = tiny_config(model=PRE, decoding=decoding)
    return TranslationModel(TrainedModel(config, *make_model("pre")))


def exits(model: TranslationModel, rule: Any) -> list[int]:
    """The exits of all tokens."""
    found = model.search(SOURCES, policy=rule).hypotheses
    return [depth for hypothesis in found for depth in hypothesis.exits]


def test_higher_thresholds_exit_earlier(model: TranslationModel, rule: Any):
    found = [exits(model, rule(threshold)) for threshold in (0.0, 0.5, 0.6, 1.0)]
    averages = [sum(depths) / len(depths) for depths in found]
    assert averages == sorted(set(averages), reverse=True)
    assert set(found[0]) == {model.trained.config.model.decoder_layers}
    assert set(found[-1]) == {1}


def test_the_name_of_the_rule_survives_a_round_trip(model: TranslationModel, rule: Any):
    config = model.trained.config.model
    assert str(rule(0.25)) == "entropy:0.25"
    assert rule.read("0.25", config) == rule(0.25)


def test_the_page_is_short():
    assert len(PAGE.read_text().splitlines()) < MOST_LINES
