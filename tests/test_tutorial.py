# SPDX-License-Identifier: Apache-2.0
"""The rule of `docs/tutorial_exit_rule.md`, in a file, decodes as the page says."""

import re
from pathlib import Path
from typing import Any

import pytest

from dat_jax import TranslationModel
from dat_jax.data.vocabulary import EOS
from dat_jax.decoding.trained import TrainedModel
from dat_jax.exits.files import load_policy
from dat_jax.exits.parsing import Policy
from tests.decoding.lively import PRE, make_model
from tests.tiny import tiny_config

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tutorial_exit_rule.md"
SOURCES = [[5, 7, 4, 9, EOS], [8, 8, EOS], [6, 4, 10, 8, EOS]]
MOST_LINES = 95


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's first Python block, in the file that it names."""
    code, *_ = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    path = tmp_path_factory.mktemp("mine") / "my_rules.py"
    path.write_text(code)
    return path


@pytest.fixture(scope="module")
def model() -> TranslationModel:
    decoding = {"beam_size": 2, "max_length_ratio": 1.0, "max_length_extra": 4}
    config = tiny_config(model=PRE, decoding=decoding)
    return TranslationModel(TrainedModel(config, *make_model("pre")))


def exits(model: TranslationModel, policy: Any) -> list[int]:
    """The exits of all tokens."""
    found = model.search(SOURCES, policy=policy).hypotheses
    return [depth for hypothesis in found for depth in hypothesis.exits]


def test_higher_thresholds_exit_earlier(model: TranslationModel, file: Path):
    found = [exits(model, f"{file}:Entropy:{tau}") for tau in ("0.0", "0.5", "0.6", "1.0")]
    averages = [sum(depths) / len(depths) for depths in found]
    assert averages == sorted(set(averages), reverse=True)
    assert set(found[0]) == {model.trained.config.model.decoder_layers}
    assert set(found[-1]) == {1}


def test_an_object_decodes_as_its_name(model: TranslationModel, file: Path):
    named = load_policy(f"{file}:Entropy:0.5", model.trained.config.model)
    assert exits(model, named.rule) == exits(model, named) == exits(model, named.name)


def test_folders_are_named_as_the_page_says(file: Path):
    (shown,) = re.findall(r"`test-(my_rules\S+)-beam1`", PAGE.read_text())
    rule: Any = load_policy(f"{file}:Entropy:0.2", tiny_config().model).rule
    policy = Policy(f"{file}:Entropy:0.2", rule, "1f0c5a7e" + 56 * "0")
    assert policy.label.replace(":", "-") == shown


def test_the_page_is_short():
    assert len(PAGE.read_text().splitlines()) < MOST_LINES
