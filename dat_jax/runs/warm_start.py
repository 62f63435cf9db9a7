# SPDX-License-Identifier: Apache-2.0
"""Starting a run from another run's parameters, `training.initial_workdir`."""

import dataclasses

import jax
import jax.numpy as jnp

from dat_jax.config import Config
from dat_jax.data.vocabulary import Vocabularies
from dat_jax.errors import UserError
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.runs.workdir import Run
from dat_jax.storage.paths import as_path
from dat_jax.types import Array, Params, PRNGKeyArray

# Keys of the model that may differ between the two runs.
_OF_HEAD_OR_TRAINING = {
    "exit_head",
    "halting_weights",
    "halting_bias",
    "halting_hidden",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "layer_drop",
    "layer_drop_rates",
    "dtype",
    "rematerialisation",
}
# Keys that may differ in one direction, from the first run to the next, as exits are added.
_ADDED = {"exits": ("last", "all"), "classifiers": ("shared", "per_exit")}


def check_initial(run: Run, config: Config) -> None:
    """Checks that a new run can start from `training.initial_workdir`.

    Raises:
        UserError: there is no trained model, or one with other dimensions or settings.
    """
    initial = config.training.initial_workdir
    if not initial or run.saved_steps:
        return
    name, first = f"training.initial_workdir is {initial}", Run(as_path(initial))
    if not first.saved_steps:
        raise UserError(f"{name}, where no model has been trained: train one there first")
    trained = dataclasses.asdict(first.config.model)
    of_one_exit = {"classifiers"} if first.config.model.exits == "last" else set()
    for key, value in dataclasses.asdict(config.model).items():
        if key in _OF_HEAD_OR_TRAINING | of_one_exit or _ADDED.get(key) == (trained[key], value):
            continue
        if value != trained[key]:
            raise UserError(
                f"{name}: its model.{key} is {trained[key]!r}, not {value!r}: set both alike"
            )


def initial_params(
    config: Config, model: Transformer, vocabularies: Vocabularies, key: PRNGKeyArray
) -> Params:
    """Returns the parameters that training starts from: random ones, or those of
    `training.initial_workdir`.

    The exit head is random if the other run has none or one of another kind or shape. Exits that
    the other run does not have start with the classifier of its last one.

    Raises:
        UserError: the other run has other vocabularies, or none of its checkpoints can be read.
    """
    params = init_params(model, key)
    if not config.training.initial_workdir:
        return params
    trained = Run(as_path(config.training.initial_workdir)).load()
    assert trained.vocabularies is not None
    if trained.vocabularies.fingerprints != vocabularies.fingerprints:
        raise UserError(
            f"training.initial_workdir is {config.training.initial_workdir}: its vocabulary "
            "differs, so its data or data settings do: use the same"
        )
    kept = dict(trained.params)
    if _head(trained.config) != _head(config):
        kept.pop("exit_head", None)
    if "classifiers" in kept:
        kept["classifiers"] = jax.tree.map(_for_exits, kept["classifiers"], params["classifiers"])
    return params | kept


def _for_exits(leaf: Array, like: Array) -> Array:
    """Repeats or drops the axis of exits of a classifier's parameter, of one exit or shared."""
    return jnp.broadcast_to(leaf[-1] if leaf.ndim > like.ndim else leaf, like.shape)


def _head(config: Config) -> tuple[str, str, int]:
    """Returns the settings that two runs must share for one to take the other's exit head."""
    model = config.model
    return model.exit_head, model.halting_weights, model.halting_hidden
