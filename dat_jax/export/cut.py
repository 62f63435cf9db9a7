# SPDX-License-Identifier: Apache-2.0
"""Cuts a trained model: an exit becomes the end of its decoder."""

import dataclasses

import jax

from dat_jax.config import Config
from dat_jax.config.schema import require
from dat_jax.decoding.trained import TrainedModel
from dat_jax.runtime.jax_flags import our_modes
from dat_jax.types import Params


@our_modes()
def up_to(trained: TrainedModel, depth: int | None) -> TrainedModel:
    """Returns the model of decoder blocks 1 to `depth` with their exits; by default the whole one.

    A shallower model has no exit head, since a head chooses among the exits of the whole model.

    Raises:
        UserError: the model has no exit at this depth.
    """
    exits = trained.config.model.exit_depths
    depth = exits[-1] if depth is None else depth
    known = ", ".join(map(str, exits))
    require(depth in exits, f"--depth={depth}: the model has no exit there: give one of {known}")
    if depth == exits[-1]:
        return trained
    config = _up_to(trained.config, depth)
    return dataclasses.replace(
        trained,
        config=config,
        model=trained.model.clone(config=config.model),
        params=_lowest(trained.params, depth, per_exit=config.model.classifiers == "per_exit"),
    )


def _up_to(config: Config, depth: int) -> Config:
    model = dataclasses.replace(config.model, decoder_layers=depth, exit_head="none")
    trained = dataclasses.replace(config.exit, trains="model_and_head")  # all that goes without one
    return dataclasses.replace(config, model=model, exit=trained)


def _lowest(params: Params, depth: int, *, per_exit: bool) -> Params:
    """Returns the parameters of the lowest blocks and exits; `per_exit`: each has a table."""
    kept = {name: part for name, part in params.items() if name != "exit_head"}
    kept["decoder"] = jax.tree.map(lambda leaf: leaf[:depth], params["decoder"])
    if "classifiers" in params:
        kept["classifiers"] = {
            name: leaf[:depth] if per_exit or name != "table" else leaf
            for name, leaf in params["classifiers"].items()
        }
    return kept
