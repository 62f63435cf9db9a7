# SPDX-License-Identifier: Apache-2.0
"""A model in three parts, to keep or to publish; `dat_jax.load` reads it.

config.json  model.safetensors  vocabulary/

Tensors have the names of the parameters with dots between, as `decoder.blocks.self_attention.query.
kernel`, and their shapes: the blocks of a stack are stacked on a leading axis.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dat_jax.config import Config
from dat_jax.config.schema import require
from dat_jax.data.dataset import open_vocabularies, vocabulary_paths
from dat_jax.data.vocabulary import Vocabularies
from dat_jax.decoding.trained import TrainedModel, on_local_devices
from dat_jax.errors import UserError
from dat_jax.exits.parsing import parse_policy
from dat_jax.export.packages import needed
from dat_jax.model.transformer import init_params
from dat_jax.runs.workdir import make_model
from dat_jax.runtime.jax_flags import our_modes
from dat_jax.types import Params

_CONFIG, _TENSORS, _VOCABULARY = "config.json", "model.safetensors", "vocabulary"


def safetensors_writer() -> Callable[[TrainedModel, Path], None]:
    """Returns the function that writes a model into an empty folder.

    Raises:
        UserError: safetensors is not installed.
    """
    package = needed("safetensors.numpy")

    def write(trained: TrainedModel, folder: Path) -> None:
        assert trained.vocabularies is not None
        tensors = {name: np.asarray(leaf) for name, leaf in _named(trained.params).items()}
        metadata = {
            "steps": json.dumps(trained.steps),
            "vocabularies": json.dumps(trained.vocabularies.fingerprints),
        }
        (folder / _TENSORS).write_bytes(package.save(tensors, metadata))
        _portable(trained.config).save(folder / _CONFIG)
        (folder / _VOCABULARY).mkdir()
        paths = vocabulary_paths(folder / _VOCABULARY, trained.config.data)
        for path, vocabulary in zip(paths, trained.vocabularies, strict=True):
            path.write_bytes(vocabulary.serialized)

    return write


def is_exported(folder: Path) -> bool:
    """Returns whether a folder holds a model in this format."""
    return (folder / _TENSORS).exists()


@our_modes()
def read_exported(folder: Path) -> TrainedModel:
    """Reads a model.

    Raises:
        UserError: a part is missing or damaged, parts are not of one model, or safetensors is not
            installed.
    """
    config = Config.load(folder / _CONFIG)
    vocabularies = open_vocabularies(folder / _VOCABULARY, config.data)
    model = make_model(config, vocabularies)
    tensors, metadata = _read(folder / _TENSORS)
    shapes = jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))
    _check(folder, tensors, metadata, _named(shapes), vocabularies)
    leaves = [tensors[name] for name in _named(shapes)]
    params = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    placed = jax.device_put(params, on_local_devices())
    return TrainedModel(config, model, placed, vocabularies, tuple(json.loads(metadata["steps"])))


def _portable(config: Config) -> Config:
    """Returns a config without paths of this machine, and with a policy that needs only the model.

    A policy that needs a workdir or an exit that was cut off becomes `fixed`.
    """
    policy = config.decoding.policy
    try:
        parse_policy(policy, config.model)
    except UserError:
        policy = "fixed"
    kind, _, place = config.data.source.partition(":")
    source = f"{kind}:{Path(place).name}" if kind == "text" else config.data.source
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, source=source),
        training=dataclasses.replace(config.training, initial_workdir="", checkpoint_folder=""),
        decoding=dataclasses.replace(config.decoding, policy=policy),
    )


def _named(params: Params) -> dict[str, Any]:
    """Returns the leaves of a parameter tree, in its order, by their names in the file."""
    leaves = jax.tree.leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the tensors of a file and its metadata."""
    package = needed("safetensors")
    try:
        with package.safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except package.SafetensorError as error:
        raise UserError(f"{path} cannot be read, {error}: export the model again") from None


def _check(
    folder: Path,
    tensors: dict[str, np.ndarray],
    metadata: dict[str, str],
    expected: dict[str, Any],
    vocabularies: Vocabularies,
) -> None:
    """Checks that tensors and vocabularies are those of the config.

    Raises:
        UserError: they are not.
    """
    for name in {**expected, **tensors}:
        found, right = (
            f"{tree[name].dtype}{list(tree[name].shape)}" if name in tree else "missing"
            for tree in (tensors, expected)
        )
        require(
            found == right,
            f"{folder / _TENSORS}: {name} is {found}, and for {_CONFIG} it must be {right}: export "
            "the model again",
        )
    require(
        json.loads(metadata.get("vocabularies", "[]")) == list(vocabularies.fingerprints),
        f"{folder / _VOCABULARY} is not the vocabulary of {_TENSORS}: export the model again",
    )
