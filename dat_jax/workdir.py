# SPDX-License-Identifier: Apache-2.0
"""What a workdir holds of a run, and how a trained model comes out of it.

config.json  vocabulary/  data/  checkpoints/  metrics.jsonl  tensorboard/  evaluation.jsonl
"""

import dataclasses
from pathlib import Path

import jax

from dat_jax.config import Config
from dat_jax.data.dataset import Dataset, open_dataset
from dat_jax.errors import UserError
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.training.checkpoint import Checkpoints, placed
from dat_jax.types import Params, PRNGKeyArray

# What may change between a run and its continuation; all else would make it another run.
_CHANGEABLE = {
    ("training", name)
    for name in ("steps", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints")
}

# What a model may differ in from the one that its training starts from.
_OF_HEAD_OR_TRAINING = {
    "exit_head",
    "halting_weights",
    "halting_bias",
    "dropout",
    "attention_dropout",
    "dtype",
}


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A run's config, data and parameters."""

    config: Config
    dataset: Dataset
    model: Transformer
    params: Params
    steps: list[int]  # of the checkpoints whose parameters were averaged, newest first


def check_same_run(config: Config, workdir: Path) -> None:
    """Makes sure that `workdir` is new or holds a run that `config` may go on with.

    Once there is a checkpoint, how long to train, what to keep and how to decode may change, and
    all else may not.

    Raises:
        UserError: `workdir` holds another run or one that went on for longer, or is a file.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file: name a folder")
    steps = _saved_steps(workdir)
    if not steps:
        return
    if max(steps) > config.training.steps:
        raise UserError(
            f"{workdir} has been trained to step {max(steps)} and training.steps is "
            f"{config.training.steps}: raise it, or give another --workdir"
        )
    kept = dataclasses.asdict(Config.load(workdir / "config.json"))
    for section, values in dataclasses.asdict(config).items():
        for key, value in values.items():
            before = kept[section][key]
            changeable = section == "decoding" or (section, key) in _CHANGEABLE
            if value != before and not changeable:
                raise UserError(
                    f"{workdir} holds a run with {section}.{key} = {before!r}, not {value!r}: "
                    "give another --workdir"
                )


def _saved_steps(workdir: Path) -> list[int]:
    return [int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdecimal()]


def make_model(config: Config, dataset: Dataset) -> Transformer:
    """The model of `config` for the vocabularies of `dataset`."""
    return Transformer(config.model, dataset.source_vocabulary.size, dataset.target_vocabulary.size)


def check_initial_workdir(config: Config, workdir: Path) -> None:
    """Makes sure that a run that is yet to begin in `workdir` can start where its config says.

    Raises:
        UserError: there is no trained model in `training.initial_workdir`, or a different one.
    """
    initial = config.training.initial_workdir
    if not initial or _saved_steps(workdir):
        return
    name = f"training.initial_workdir is {initial}"
    if not _saved_steps(Path(initial)):
        raise UserError(f"{name}: no model has been trained there, train one first")
    there = dataclasses.asdict(Config.load(Path(initial) / "config.json").model)
    for key, value in dataclasses.asdict(config.model).items():
        if key not in _OF_HEAD_OR_TRAINING and value != there[key]:
            raise UserError(f"{name}: its model.{key} is {there[key]!r}, not {value!r}")


def initial_params(
    config: Config, model: Transformer, dataset: Dataset, key: PRNGKeyArray
) -> Params:
    """The parameters that training begins with: drawn, or those of `training.initial_workdir`.

    An exit head that is not there, or that is of another kind there, is drawn.

    Raises:
        UserError: the vocabularies are others there, or no checkpoint can be read.
    """
    params = init_params(model, key)
    if not config.training.initial_workdir:
        return params
    initial = Path(config.training.initial_workdir)
    trained = load(Config.load(initial / "config.json"), open_dataset(initial), initial)
    if trained.dataset.fingerprints != dataset.fingerprints:
        raise UserError(
            f"training.initial_workdir is {initial}: its vocabulary is another one, so the data "
            "or its settings must be; use the same"
        )
    kept = dict(trained.params)
    if _head(trained.config) != _head(config):
        kept.pop("exit_head", None)
    return params | kept


def _head(config: Config) -> tuple[str, str]:
    """What two runs must agree in for one to go on with the other's exit head."""
    return config.model.exit_head, config.model.halting_weights


def load(
    config: Config, dataset: Dataset, workdir: Path, average_checkpoints: int | None = None
) -> TrainedModel:
    """Loads the model that was trained in `workdir`.

    Args:
        config: the run's.
        dataset: its data.
        workdir: where `train.py` has been.
        average_checkpoints: how many of the last checkpoints to average; by default what the run's
            `decoding.average_checkpoints` says, or as many as there are.

    Raises:
        UserError: nothing has been trained there, a part is missing or damaged, or there are fewer
            checkpoints than asked for.
    """
    model = make_model(config, dataset)
    shapes = jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = placed(shapes, sharding)
    directory = workdir / "checkpoints"
    if not directory.is_dir():
        raise UserError(f"{workdir} holds no checkpoint: train a model into it first")
    with Checkpoints(directory) as checkpoints:
        at_most = average_checkpoints or config.decoding.average_checkpoints
        steps, params = checkpoints.average(like, at_most)
    if average_checkpoints and len(steps) < average_checkpoints:
        raise UserError(
            f"average_checkpoints is {average_checkpoints} and {directory} holds {len(steps)}: "
            "average fewer or train longer"
        )
    return TrainedModel(config, dataset, model, params, steps)
