# SPDX-License-Identifier: Apache-2.0
"""The run that another starts from, by `training.initial_workdir`: what must fit, what is taken."""

import dataclasses

from dat_jax.config import Config
from dat_jax.data.vocabulary import Vocabularies
from dat_jax.errors import UserError
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.paths import as_path
from dat_jax.types import Params, PRNGKeyArray
from dat_jax.workdir import Run

# What a model may differ in from the one that it starts from.
_OF_HEAD_OR_TRAINING = {
    "exit_head",
    "halting_weights",
    "halting_bias",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "layer_drop",
    "layer_drop_rates",
    "dtype",
    "rematerialisation",
}


def check_initial(run: Run, config: Config) -> None:
    """Makes sure that a run that is yet to begin can start where its config says.

    Raises:
        UserError: there is no trained model in `training.initial_workdir`, or a different one.
    """
    initial = config.training.initial_workdir
    if not initial or run.saved_steps:
        return
    name, first = f"training.initial_workdir is {initial}", Run(as_path(initial))
    if not first.saved_steps:
        raise UserError(f"{name}: no model has been trained there, train one first")
    trained = dataclasses.asdict(first.config.model)
    for key, value in dataclasses.asdict(config.model).items():
        if key not in _OF_HEAD_OR_TRAINING and value != trained[key]:
            raise UserError(
                f"{name}: its model.{key} is {trained[key]!r}, not {value!r}: set it alike"
            )


def initial_params(
    config: Config, model: Transformer, vocabularies: Vocabularies, key: PRNGKeyArray
) -> Params:
    """The parameters that training begins with: drawn, or those of `training.initial_workdir`.

    An exit head that the other run lacks, or that is of another kind there, is drawn.

    Raises:
        UserError: the vocabularies are others there, or no checkpoint can be read.
    """
    params = init_params(model, key)
    if not config.training.initial_workdir:
        return params
    trained = Run(as_path(config.training.initial_workdir)).load()
    assert trained.vocabularies is not None
    if trained.vocabularies.fingerprints != vocabularies.fingerprints:
        raise UserError(
            f"training.initial_workdir is {config.training.initial_workdir}: its vocabulary is "
            "another one, so the data or its settings must be; use the same"
        )
    kept = dict(trained.params)
    if _head(trained.config) != _head(config):
        kept.pop("exit_head", None)
    return params | kept


def _head(config: Config) -> tuple[str, str]:
    """The settings that two runs must share for one to go on with the other's exit head."""
    return config.model.exit_head, config.model.halting_weights
