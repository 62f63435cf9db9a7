# SPDX-License-Identifier: Apache-2.0
"""What a workdir holds of a run, and how a trained model comes out of it.

config.json  vocabulary/  data/  checkpoints/  metrics.jsonl  tensorboard/  evaluation.jsonl
"""

import dataclasses
from pathlib import Path

import jax

from dat_jax.config import Config
from dat_jax.data.dataset import Dataset
from dat_jax.errors import UserError
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.training.checkpoint import Checkpoints
from dat_jax.types import Params

# What may change between a run and its continuation; all else would make it another run.
_CHANGEABLE = {
    ("training", name)
    for name in ("steps", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints")
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
    steps = [int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdecimal()]
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


def make_model(config: Config, dataset: Dataset) -> Transformer:
    """The model of `config` for the vocabularies of `dataset`."""
    return Transformer(config.model, dataset.source_vocabulary.size, dataset.target_vocabulary.size)


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
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
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
