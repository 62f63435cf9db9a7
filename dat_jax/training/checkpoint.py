# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disk: train state and position in the data; the only user of orbax."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from dat_jax.errors import UserError
from dat_jax.training.state import TrainState
from dat_jax.types import Params

Position = dict[str, int]


class Checkpoints:
    """The checkpoints of one run, each under the step it was made at.

    Saving returns once the arrays are copied; writing goes on behind it. Close when done, or use
    as a context.
    """

    def __init__(self, directory: Path, keep: int | None = None) -> None:
        """Opens `directory`, which may not exist yet; `keep` older ones stay, by default all."""
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, step_format_fixed_length=8, create=True
        )
        self._manager = ocp.CheckpointManager(directory.resolve(), options=options)
        self._directory = directory

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, position: Position) -> None:
        """Saves `state` and where the data stands."""
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                optimizer=ocp.args.StandardSave(state.optimizer_state),
                position=ocp.args.JsonSave(position),
            ),
        )

    def restore(self, like: TrainState) -> tuple[TrainState, Position] | None:
        """Restores the newest checkpoint that can be read; None if there is none at all.

        Args:
            like: a state of the same structure, whose arrays or `ShapeDtypeStruct`s tell shapes,
                dtypes and shardings.

        Raises:
            UserError: there are checkpoints, but none can be read.
        """

        def read(step: int) -> tuple[TrainState, Position]:
            items = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardRestore(like.params),
                    optimizer=ocp.args.StandardRestore(like.optimizer_state),
                    position=ocp.args.JsonRestore(),
                ),
            )
            state = TrainState(jnp.asarray(step, jnp.int32), items["params"], items["optimizer"])
            shardings = jax.tree.map(lambda x: x.sharding, like)
            return jax.device_put(state, shardings), items["position"]

        return next(self._readable(read), None)

    def average(self, like: Params, last: int) -> tuple[int, Params]:
        """Averages the parameters of the `last` newest checkpoints that can be read.

        Args:
            like: parameters of the same structure, as for `restore`.
            last: how many.

        Returns:
            The newest step, and the mean of the parameters.

        Raises:
            UserError: fewer can be read than asked for.
        """

        def read(step: int) -> tuple[int, Params]:
            arguments = ocp.args.Composite(params=ocp.args.StandardRestore(like))
            return step, self._manager.restore(step, args=arguments)["params"]

        newest, total, count = 0, None, 0
        for step, params in self._readable(read):
            total = params if total is None else jax.tree.map(jnp.add, total, params)
            newest, count = max(newest, step), count + 1
            if count == last:
                return newest, jax.tree.map(lambda x: x / last, total)
        raise UserError(
            f"{self._directory} holds {count} checkpoints and decoding.average_checkpoints is "
            f"{last}: train longer or average fewer"
        )

    def _readable(self, read) -> Iterator:
        """Yields `read(step)`, newest first, passing over damaged checkpoints with a warning."""
        damaged = 0
        for step in reversed(self.steps):
            try:
                item = read(step)
            except (ValueError, KeyError, OSError) as error:
                logging.debug("Checkpoint %d: %s", step, error)
                logging.warning("Checkpoint %d of %s cannot be read", step, self._directory)
                damaged += 1
            else:
                yield item
        if damaged and damaged == len(self.steps):
            raise UserError(
                f"no checkpoint in {self._directory} can be read: restore one, or use another "
                "--workdir to start again"
            )
