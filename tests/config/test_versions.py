# SPDX-License-Identifier: Apache-2.0
"""Workdirs of version 0.1.0 keep their meaning; workdirs of a later format are refused."""

import dataclasses
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

import dat_jax
from dat_jax.config import Config
from dat_jax.data.dataset import prepared_config
from dat_jax.data.tokens import TokenFile
from dat_jax.errors import UserError
from dat_jax.runs.compatibility import check_continues
from dat_jax.runs.workdir import Run
from dat_jax.storage.stamped import FORMAT, read_stamped, write_stamped

FIXTURES = Path(__file__).parent / "fixtures"
EXPECTED = json.loads((FIXTURES / "workdir_0.1.0.json").read_text(encoding="utf-8"))
"""Translations by version 0.1.0."""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The workdir of a tiny model trained by version 0.1.0; read only."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(FIXTURES / "workdir_0.1.0.tar.gz") as file:
        file.extractall(folder, filter="data")
    return Run(folder / "workdir_0.1.0")


@pytest.fixture(scope="module")
def model(old: Run) -> dat_jax.TranslationModel:
    return dat_jax.load(old.path)


@pytest.mark.parametrize(
    "case", EXPECTED["found"], ids=lambda case: f"{case['policy']}-beam{case['beam_size']}"
)
def test_an_old_model_gives_the_same_translations(
    model: dat_jax.TranslationModel, case: dict[str, Any]
):
    settings = {"policy": case["policy"], "beam_size": case["beam_size"]}
    translations = model.translate(EXPECTED["sources"], **settings)
    assert [translation.text for translation in translations] == case["translations"]
    exits = ["".join(map(str, translation.exits)) for translation in translations]
    assert exits == case["exits"]


def test_old_keys_are_read_as_current_ones(old: Run):
    written = json.loads(old.config_file.read_text())
    assert (written["model"]["num_layers"], written["training"]["accumulation"]) == (2, 2)
    assert written["decoding"]["engine"] == "continuous"
    config = old.config
    assert (config.model.decoder_layers, config.training.microbatches) == (2, 2)
    assert not hasattr(config.decoding, "engine")  # there is only one now
    assert config.decoding.batch_size == written["decoding"]["batch_size"]
    assert (config.data.source_normalization, config.data.target_normalization) == ("none", "none")
    assert prepared_config(old.data) == config.data
    assert config.decoding.bleu_tokenizer == "13a"
    assert (config.training.sharding, config.model.rematerialisation) == ("replicated", "none")
    assert (config.data.max_length_ratio, config.data.valid_every) == (0, 0)
    assert config.optimizer.schedule == "inverse_sqrt"
    assert config.decoding.max_source_length == config.data.max_length
    assert (config.training.profile, config.training.checkpoint_folder) == ("", "")
    assert config.model.activation_dropout == config.model.dropout == 0.0
    assert (config.model.layer_drop, config.model.layer_drop_rates) == (0, "constant")
    assert config.training.gradient_from_above == 1
    assert config.model.halting_hidden == 0
    assert (config.data.prepared, config.data.vocabulary_files) == ("", ("", ""))
    assert config.decoding.report_split == "test"
    assert (config.training.best_by, config.training.patience) == ("loss", 0)
    assert (config.training.bleu_every, config.training.bleu_exits) == (0, ())


def test_an_old_run_can_be_resumed(old: Run):
    longer = dataclasses.replace(old.config.training, steps=300, profile="290-300")
    check_continues(old, dataclasses.replace(old.config, training=longer))
    measured = dataclasses.replace(longer, bleu_every=100, bleu_sentences=7, patience=2)
    check_continues(old, dataclasses.replace(old.config, training=measured))
    assert old.prepare(old.config).report().startswith("train: 198 pairs")


def test_stamped_values_are_read_back_with_their_version(tmp_path: Path):
    path = tmp_path / "config.json"
    write_stamped(path, {"model": {"num_layers": 3}})
    assert read_stamped(path) == ({"model": {"num_layers": 3}}, FORMAT, dat_jax.__version__)


def change_to_a_later_format(path: Path) -> None:
    """Changes a file as if a later version had written it."""
    values = json.loads(path.read_text()) | {"format": FORMAT + 1, "version": "9.9.9"}
    path.write_text(json.dumps(values))


def refusal(read: Any, *arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_error_for_a_later_format_names_its_version(tmp_path: Path, old: Run):
    config, data = tmp_path / "config.json", tmp_path / "data"
    old.config.save(config)
    change_to_a_later_format(config)
    data.mkdir()
    write_stamped(data / "config.json", dataclasses.asdict(old.config.data))
    change_to_a_later_format(data / "config.json")
    write_stamped(data / "header.json", {})
    change_to_a_later_format(data / "header.json")
    for message in (
        refusal(Config.load, config),
        refusal(prepared_config, data),
        refusal(TokenFile, data),
    ):
        assert f"was written by dat_jax 9.9.9 in format {FORMAT + 1}" in message
        assert "use that version or a later one" in message
        assert "delete" not in message


def test_unreleased_formats_are_refused(tmp_path: Path, old: Run):
    path = tmp_path / "config.json"
    for number in (2, 6, [7]):
        path.write_text(json.dumps(dataclasses.asdict(old.config) | {"format": number}))
        assert f"in format {number}, which dat_jax" in refusal(Config.load, path)


STARTS = [("decoding", "report_split"), ("data", "prepared")]
STARTS += [("data", "source_vocabulary"), ("data", "target_vocabulary")]
HABITS = [("training", key) for key in ("best_by", "patience", "bleu_every")]
HABITS += [("training", key) for key in ("bleu_sentences", "bleu_exits")]


@pytest.mark.parametrize(
    ("number", "later"),
    [
        (7, [("decoding", "shortlist"), ("model", "halting_hidden"), *STARTS, *HABITS]),
        (8, [("model", "halting_hidden"), *STARTS, *HABITS]),
        (8, [*STARTS, *HABITS]),
        (8, HABITS),
        (8, [("decoding", "trailing_gap")]),
    ],
)
def test_files_without_keys_that_came_later_are_read(
    tmp_path: Path, old: Run, number: int, later: list[tuple[str, str]]
):
    path = tmp_path / "config.json"
    values = dataclasses.asdict(old.config) | {"format": number, "version": "0.2.0"}
    for section, key in later:
        del values[section][key]
    path.write_text(json.dumps(values))
    assert Config.load(path) == old.config


def test_the_error_for_an_unknown_key_names_the_version_that_wrote_it(tmp_path: Path, old: Run):
    values = dataclasses.asdict(old.config)
    values["model"]["novelty"] = 1
    write_stamped(tmp_path / "config.json", values)
    message = refusal(Config.load, tmp_path / "config.json")
    assert f"written by dat_jax {dat_jax.__version__}: unknown config key model.novelty" in message
    write_stamped(tmp_path / "config.json", dataclasses.asdict(old.config.data) | {"novelty": 1})
    message = refusal(prepared_config, tmp_path)
    assert f"written by dat_jax {dat_jax.__version__}: unknown config key data.novelty" in message
