# SPDX-License-Identifier: Apache-2.0
"""What is written to safetensors is read back to the bit."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import dat_jax
from dat_jax.config import Config
from dat_jax.decoding.trained import TrainedModel
from dat_jax.errors import UserError
from dat_jax.export.cut import up_to
from dat_jax.export.safetensors import safetensors_writer
from tests.export.models import make, sources

KIND = "post, per exit"


def export(trained: TrainedModel, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    safetensors_writer()(trained, folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return export(make(KIND).trained, tmp_path / "exported")


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("kind", [KIND, "post, tied", "pre, shared"])
def test_a_model_comes_back_to_the_bit(kind: str, depth: int, tmp_path: Path):
    trained = up_to(make(kind).trained, depth)
    back = dat_jax.load(export(trained, tmp_path)).trained
    assert back.sha256 == trained.sha256
    assert back.config == trained.config
    assert back.model == trained.model
    assert back.steps == trained.steps == (7, 5)
    assert back.vocabularies is not None is not trained.vocabularies
    assert back.vocabularies.fingerprints == trained.vocabularies.fingerprints
    assert back.devices == trained.devices


def test_it_translates_with_all_exits(folder: Path):
    model, lines = make(KIND), sources(make(KIND))[:8]
    for policy in ("token_geometric:0.5", "fixed:1"):
        how = {"policy": policy, "beam_size": 1, "max_length_ratio": 0.0, "max_length_extra": 24}
        assert dat_jax.load(folder).translate(lines, **how) == model.translate(lines, **how)


def test_tensors_have_the_names_and_shapes_of_the_parameters(folder: Path):
    tensors, params = load_file(folder / "model.safetensors"), make(KIND).trained.params
    name = "decoder.blocks.memory_attention.key.kernel"
    assert tensors[name].shape == (3, 12, 2, 4)  # blocks, encoder width, heads, width of a head
    kernel = params["decoder"]["blocks"]["memory_attention"]["key"]["kernel"]
    np.testing.assert_array_equal(tensors[name], kernel)
    assert tensors["classifiers.table"].shape == (3, 120, 8)


def test_the_config_names_no_paths_and_a_policy_that_the_folder_suffices_for(tmp_path: Path):
    trained = make(KIND).trained
    values = dataclasses.asdict(trained.config)
    values["data"] |= {"source": "text:/home/me/corpus"}
    values["training"] |= {"initial_workdir": "/home/me/runs", "checkpoint_folder": "gs://my/run"}
    values["decoding"] |= {"policy": "tuned:AE<=2"}
    elsewhere = dataclasses.replace(trained, config=Config.from_dict(values))
    config = dat_jax.load(export(elsewhere, tmp_path)).trained.config
    assert config.data.source == "text:corpus"
    assert (config.training.initial_workdir, config.training.checkpoint_folder) == ("", "")
    assert config.decoding.policy == "fixed"
    values["decoding"] |= {"policy": "token_geometric:0.25"}
    ours = dataclasses.replace(trained, config=Config.from_dict(values))
    assert dat_jax.load(export(ours, tmp_path / "b")).trained.config.decoding.policy == (
        "token_geometric:0.25"
    )


def refused(folder: Path, **settings: int) -> str:
    """The one line that loading a folder ends with."""
    with pytest.raises(UserError) as caught:
        dat_jax.load(folder, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_damaged_and_mixed_folders_are_refused(folder: Path, tmp_path: Path):
    file = folder / "model.safetensors"
    whole, tensors = file.read_bytes(), load_file(file)
    assert "average_checkpoints is 2: leave it out" in refused(folder, average_checkpoints=2)

    file.write_bytes(whole[:-1])
    assert "cannot be read" in refused(folder)
    save_file({name: x for name, x in tensors.items() if name != "exit_head.bias"}, file)
    assert "exit_head.bias is missing, and for config.json it must be float32[1]" in refused(folder)
    save_file(tensors | {"more": np.zeros(2)}, file)
    assert "more is float64[2], and for config.json it must be missing" in refused(folder)
    save_file(tensors, file)
    assert "vocabulary is not the vocabulary of model.safetensors" in refused(folder)

    file.write_bytes(whole)
    other = export(make("pre, shared").trained, tmp_path / "other")
    (other / "config.json").rename(folder / "config.json")
    assert "model.safetensors: " in refused(folder)
