# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disk: train state and position in the data; the only user of orbax."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from dat_jax.errors import UserError
from dat_jax.training.step import TrainState
from dat_jax.types import Params

Position = dict[str, Any]
Item = TypeVar("Item")

_DIGITS = 8  # of a step in the name of its folder


def placed(shapes: Item, sharding: jax.sharding.Sharding) -> Item:
    """Says of each array in a tree of shapes where it is to be restored to."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


class Checkpoints:
    """The checkpoints of one run, each under the step it was made at.

    Saving returns once the arrays are copied; writing goes on behind it. Close when done, or use
    as a context.
    """

    def __init__(self, directory: Path, keep: int | None = None) -> None:
        """Opens `directory`, which may not exist yet; the newest `keep` stay, by default all."""
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, step_format_fixed_length=_DIGITS, create=True
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
        """Saves `state` and the position in the data.

        Raises:
            RuntimeError: orbax declined to, as for a step that it has.
        """
        saved = self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                optimizer=ocp.args.StandardSave(state.optimizer_state),
                position=ocp.args.JsonSave(position),
            ),
        )
        if not saved:
            raise RuntimeError(f"orbax declined to save step {int(state.step)}")

    def restore(self, like: TrainState) -> tuple[TrainState, Position] | None:
        """Restores the newest checkpoint that can be read; None if there is none at all.

        Newer ones, which cannot, are renamed: their steps will be made and saved again.

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

        restored = next(self._readable(read), None)
        if restored is not None:
            for step in self.steps:
                if step > int(restored[0].step):
                    folder = self._directory / f"{step:0{_DIGITS}}"
                    folder.rename(folder.with_suffix(".damaged"))
            self._manager.reload()
        return restored

    def position(self, step: int) -> Position:
        """The position in the data at which the checkpoint of `step` was saved."""
        arguments = ocp.args.Composite(position=ocp.args.JsonRestore())
        return self._manager.restore(step, args=arguments)["position"]

    def average(self, like: Params, at_most: int) -> tuple[list[int], Params]:
        """Averages the parameters of the newest checkpoints that can be read.

        Args:
            like: parameters of the same structure, as for `restore`.
            at_most: how many; all if there are fewer.

        Returns:
            The steps of those that were averaged, newest first, and the mean of their parameters.

        Raises:
            UserError: there is none that can be read.
        """

        def read(step: int) -> tuple[int, Params]:
            arguments = ocp.args.Composite(params=ocp.args.StandardRestore(like))
            return step, self._manager.restore(step, args=arguments)["params"]

        steps: list[int] = []
        total: Params = {}
        for step, params in itertools.islice(self._readable(read), at_most):
            total = jax.tree.map(jnp.add, total, params) if steps else params
            steps.append(step)
        if not steps:
            raise UserError(f"{self._directory} holds no checkpoint: train a model first")
        return steps, jax.tree.map(lambda x: x / len(steps), total)

    def _readable(self, read: Callable[[int], Item]) -> Iterator[Item]:
        """Yields `read(step)`, newest first, passing over damaged checkpoints with a warning."""
        damaged = 0
        for step in reversed(self.steps):
            try:
                item = read(step)
            except (ValueError, KeyError, OSError) as error:
                reason = str(error).partition("\n")[0][:200]
                logging.warning(
                    "Checkpoint %s/%d cannot be read: %s", self._directory, step, reason
                )
                damaged += 1
            else:
                yield item
        if damaged and damaged == len(self.steps):
            raise UserError(
                f"no checkpoint in {self._directory} can be read: restore one, or use another "
                "--workdir to start again"
            )
