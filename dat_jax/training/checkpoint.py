# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disk: train state and position in the data; the only user of orbax.

Training writes them, through `Checkpoints`, and may restore; if several processes train, all do it
together, and the first makes and removes folders. Any process may read them meanwhile: reading
creates and deletes nothing, waits for nobody, and what it reads may be deleted under its hands.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint.checkpoint_managers import PreservationContext, PreservationPolicy

from dat_jax.errors import Stopped, UserError
from dat_jax.processes import by_first, gather, index, is_first
from dat_jax.training.failures import explained, quieten, wait_for_threads
from dat_jax.training.manifest import verify, write_manifest
from dat_jax.training.sharding import place
from dat_jax.training.step import TrainState
from dat_jax.training.storage import (
    DIGITS,
    checkpoint_folders,
    folder_of,
    in_bucket,
    saved_steps,
    set_aside,
    stored,
)
from dat_jax.types import Params

Position = dict[str, Any]
Item = TypeVar("Item")

# In the position: one without it is of a version that wrote none.
_HAS_MANIFEST = "has_manifest"
_STOPPED = "stopped"  # in the position of one that was made because training was stopped


class Averaged(NamedTuple):
    """The mean parameters of some checkpoints, and the position in the data of the newest."""

    steps: list[int]  # newest first
    params: Params
    position: Position


def placed(shapes: Item, sharding: jax.sharding.Sharding) -> Item:
    """Says of each array in a tree of shapes where it is to be restored to."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


def restore(directory: epath.PathLike, like: TrainState) -> tuple[TrainState, Position] | None:
    """Restores the newest checkpoint that can be read; None if there is none at all.

    Newer ones, which cannot, are renamed: their steps will be made and saved again. Only those
    that save may call it, if they are several, together.

    Args:
        directory: where the checkpoints are.
        like: a state of the same structure, whose arrays or `ShapeDtypeStruct`s tell shapes,
            dtypes and shardings.

    Raises:
        UserError: there are checkpoints, but none can be read, or not the same by all.
    """
    directory = stored(directory)
    readable = _readable(directory, params=like.params, optimizer=like.optimizer_state)
    newest = next(readable, None)
    _check_same_steps(directory, [newest[0]] if newest else [])
    if newest is None:
        return None
    step, items, position = newest
    for newer in saved_steps(directory) if is_first() else ():
        if newer > step:
            set_aside(folder_of(directory, newer))
    placed_step = place(jnp.asarray(step, jnp.int32), like.step)
    return TrainState(placed_step, items["params"], items["optimizer"]), position


def average(directory: epath.PathLike, like: Params, at_most: int) -> Averaged:
    """Averages the parameters of the newest checkpoints that can be read.

    One that was made because training was stopped is left out once it has gone on, so that the mean
    does not depend on that. All processes that make a run together do it together.

    Args:
        directory: where the checkpoints are.
        like: parameters of the same structure, as for `restore`.
        at_most: how many; all if there are fewer.

    Raises:
        UserError: there is none that can be read, or not the same by all.
    """
    directory = stored(directory)
    total: Params = {}
    positions: dict[int, Position] = {}
    readable = _readable(directory, params=like)
    newest = next(readable, None)
    counted = (found for found in readable if not was_stopped(found[2]))
    for step, items, position in islice(chain([newest] if newest else [], counted), at_most):
        params = items["params"]
        total = jax.tree.map(jnp.add, total, params) if positions else params
        positions[step] = position
    if not positions:
        raise UserError(f"{directory} holds no checkpoint: train a model first")
    steps = sorted(positions, reverse=True)
    _check_same_steps(directory, steps)
    return Averaged(steps, jax.tree.map(lambda x: x / len(steps), total), positions[steps[0]])


def was_stopped(position: Position) -> bool:
    """True of a checkpoint that was made because training was stopped."""
    return bool(position.get(_STOPPED))


class Checkpoints:
    """The checkpoints of one training, each under the step it was made at; use it as a context.

    Saving returns once the arrays are copied. Writing goes on behind it, checksums are taken, and
    only then is the checkpoint there for others, all at once. What fails there is raised by the
    next `save` or at the end.
    """

    def __init__(
        self, directory: epath.PathLike, keep: int | None = None, stopped_at: int | None = None
    ) -> None:
        """Opens `directory`, which may not exist yet.

        What an interrupted save left there is removed.

        Args:
            directory: where the checkpoints are.
            keep: how many of the newest stay; by default all.
            stopped_at: a step that has one because training was stopped; the next replaces it.
        """
        self._directory = stored(directory)
        self._failed = False
        quieten()
        by_first(self._remove_unfinished)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_Newest(keep, stopped_at),
            step_format_fixed_length=DIGITS,
            create=True,
            async_options=ocp.AsyncOptions(
                post_finalization_callback=self._add_manifest,
                barrier_sync_fn=_wait_for_all,
                # Otherwise, where a folder cannot be made, its writers wait for it ten minutes.
                create_directories_asynchronously=False,
            ),
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        failure = self._close()
        if failure is None or self._failed:
            return
        if error is None or isinstance(error, Stopped):  # which says that all is saved
            raise self._explained(failure) from None
        logging.warning("%s", self._explained(failure))

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, or will have when all is written, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, position: Position, *, stopped: bool = False) -> None:
        """Saves `state` and the position in the data.

        Args:
            state: of the training.
            position: in the data.
            stopped: it is saved because training is to stop here, and would not be otherwise.

        Raises:
            UserError: the system refused to write this checkpoint or the one before.
            RuntimeError: orbax declined to, as for a step that it has.
        """
        marks = {_HAS_MANIFEST: not in_bucket(self._directory)}
        marks |= {_STOPPED: True} if stopped else {}
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(state.params),
            optimizer=ocp.args.StandardSave(state.optimizer_state),
            position=ocp.args.JsonSave(position | marks),
        )
        try:
            saved = self._manager.save(int(state.step), args=items)
        except Exception as failure:
            self._failed = True
            raise self._explained(failure) from None
        if not saved:
            raise RuntimeError(f"orbax declined to save step {int(state.step)}")

    def _add_manifest(self) -> None:
        """Adds the manifest to the checkpoint that is being written, before it gets its name."""
        if not in_bucket(self._directory):
            _, (unfinished,) = checkpoint_folders(self._directory)
            write_manifest(Path(unfinished))

    def _close(self) -> Exception | None:
        """Waits until all is written, and returns what failed first."""
        failures: list[Exception] = []
        for _ in range(3):  # a failure stops it and is raised once; two parts of orbax may fail
            try:
                self._manager.close()
            except Exception as failure:
                failures.append(failure)
            else:
                break
        wait_for_threads()
        with contextlib.suppress(OSError):  # the next start will try again, and say so
            if is_first():
                self._remove_unfinished()
        return failures[0] if failures else None

    def _remove_unfinished(self) -> None:
        _, unfinished = checkpoint_folders(self._directory)
        for folder in unfinished:
            folder.rmtree()

    def _explained(self, failure: Exception) -> Exception:
        return explained(failure, self._directory, saved_steps(self._directory))


@dataclasses.dataclass(frozen=True)
class _Newest(PreservationPolicy):
    """Keeps the newest checkpoints, without one of a stop that training has gone on from."""

    count: int | None
    stopped_at: int | None

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: PreservationContext
    ) -> Sequence[bool]:
        """Says of each, oldest first, if it is to stay."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        counted = [step for step in steps if step != self.stopped_at or step == steps[-1]]
        kept = counted[-self.count :] if self.count else counted
        return [step in kept for step in steps]


def _check_same_steps(directory: epath.Path, steps: list[int]) -> None:
    """Makes sure that all processes read the same.

    Raises:
        UserError: they do not.
    """
    if len({tuple(each) for each in gather(steps)}) > 1:
        raise UserError(
            f"processes read different checkpoints of {directory}: run again, on a disk that all "
            "share and while no training writes there"
        )


def _wait_for_all(*, key: str, timeout_ms: int) -> None:
    """A barrier, which a process that is failing passes: all would wait for it there, as it would
    for them, and none would learn why for twenty minutes."""
    if sys.exception() is None:
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def _readable(directory: epath.Path, **like: Any) -> Iterator[tuple[int, dict[str, Any], Position]]:
    """Yields step, items and position of each checkpoint that can be read, newest first.

    The list is read again before each, since a training beside may save and delete: a new one is
    next, and it is no damage that one which was deleted cannot be read.
    """
    quieten()
    tried: set[int] = set()
    readable = 0
    while untried := set(steps := saved_steps(directory)) - tried:
        tried.add(step := max(untried))
        try:
            items, position = _read(folder_of(directory, step), like)
        except Exception as error:  # orbax raises many kinds, plain ones too
            if saved_steps(directory) == steps:
                reason = str(error).partition("\n")[0][:200]
                logging.warning("%s cannot be read: %s", folder_of(directory, step), reason)
        else:
            readable += 1
            yield step, items, position
    if tried and not readable:
        raise UserError(
            f"no checkpoint in {directory} can be read: restore one, or use another "
            "--workdir to start again"
        )


def _read(folder: epath.Path, like: dict[str, Any]) -> tuple[dict[str, Any], Position]:
    """Reads some items of a checkpoint and its position; checks the files that it reads first."""
    verified = in_bucket(folder) or verify(Path(folder), [*like, "position"])
    arguments = {name: ocp.args.StandardRestore(tree) for name, tree in like.items()}
    alone = ocp.options.MultiprocessingOptions(index(), {index()}, str(index()))
    options = ocp.CompositeOptions(multiprocessing_options=alone)
    handler = ocp.CompositeCheckpointHandler(composite_options=options)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
        items = checkpointer.restore(
            folder, ocp.args.Composite(position=ocp.args.JsonRestore(), **arguments)
        )
    position = dict(items["position"])
    if position.pop(_HAS_MANIFEST, False) and not verified:
        raise ValueError("its manifest is missing")
    return {name: items[name] for name in like}, position
