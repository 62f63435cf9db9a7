# SPDX-License-Identifier: Apache-2.0
"""Reading checkpoints: train state, position in the data, and averages of parameters.

Any process may read while another trains. Reads take no lock, so files may vanish during a read.
"""

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from dat_jax.checkpoints.folders import (
    folder_of,
    in_bucket,
    saved_steps,
    set_aside,
    stored,
)
from dat_jax.checkpoints.manifest import verify
from dat_jax.checkpoints.orbax_errors import collect_failures, hide_tracebacks
from dat_jax.checkpoints.state import TrainState, place
from dat_jax.errors import UserError
from dat_jax.runtime.processes import gather, index, is_first
from dat_jax.types import Params

Position = dict[str, Any]
Item = TypeVar("Item")

# Marks in the position. Checkpoints without the first are of a version that wrote no manifests;
# those with the second were saved because training was stopped; the third is the step of an older
# checkpoint that was then kept only because it was the best.
HAS_MANIFEST, STOPPED, KEPT_AS_BEST = "has_manifest", "stopped", "kept_as_best"


class Averaged(NamedTuple):
    """The mean parameters of some checkpoints, and the newest one's position in the data."""

    steps: list[int]  # newest first
    params: Params
    position: Position


def restore(directory: epath.PathLike, like: TrainState) -> tuple[TrainState, Position] | None:
    """Restores the newest readable checkpoint; returns None if there are no checkpoints.

    Renames newer ones that cannot be read, because their steps will be saved again. Only the
    processes that save may call this, all together.

    Args:
        directory: the folder of checkpoints.
        like: a state whose arrays or `ShapeDtypeStruct`s have the shapes, dtypes and shardings to
            restore.

    Raises:
        UserError: none can be read, processes read different ones, or values are not finite.
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
    """Averages the parameters of the newest readable checkpoints.

    Leaves out one that was saved because training was stopped, unless it is the newest, so that
    stopping and resuming does not change the average, and one that is kept only because it is the
    best. All processes of a run call this together.

    Args:
        directory: the folder of checkpoints.
        like: parameters, as for `restore`.
        at_most: number of checkpoints; all if there are fewer.

    Raises:
        UserError: none can be read, processes read different ones, or values are not finite.
    """
    directory = stored(directory)
    total: Params = {}
    positions: dict[int, Position] = {}
    readable = _readable(directory, params=like)
    newest = next(readable, None)
    best = newest[2].get(KEPT_AS_BEST) if newest else None
    counted = (found for found in readable if not was_stopped(found[2]) and found[0] != best)
    for step, items, position in islice(chain([newest] if newest else [], counted), at_most):
        params = items["params"]
        total = jax.tree.map(jnp.add, total, params) if positions else params
        positions[step] = position
    if not positions:
        raise UserError(f"{directory} holds no checkpoint: train a model first")
    steps = sorted(positions, reverse=True)
    _check_same_steps(directory, steps)
    return Averaged(steps, jax.tree.map(lambda x: x / len(steps), total), positions[steps[0]])


def read_step(directory: epath.PathLike, like: Params, step: int) -> Averaged:
    """Reads the parameters of one step's checkpoint, as `average` does those of several.

    Raises:
        UserError: it is missing or damaged, or values are not finite.
    """
    directory = stored(directory)
    folder = folder_of(directory, step)
    try:
        items, position = _read_quietly(folder, {"params": like})
    except Exception as error:  # orbax raises many kinds, even plain Exception
        reason = str(error).partition("\n")[0][:200]
        raise UserError(f"{folder} cannot be read, {reason}: choose another checkpoint") from None
    _check_finite(folder, items)
    return Averaged([step], items["params"], position)


def was_stopped(position: Position) -> bool:
    """Returns whether a checkpoint was saved because training was stopped."""
    return bool(position.get(STOPPED))


def _check_same_steps(directory: epath.Path, steps: list[int]) -> None:
    """Checks that all processes read the same checkpoints.

    Raises:
        UserError: they do not.
    """
    if len({tuple(each) for each in gather(steps)}) > 1:
        raise UserError(
            f"processes read different checkpoints of {directory}: run again on a disk that all "
            "share, while no training writes there"
        )


def _readable(directory: epath.Path, **like: Any) -> Iterator[tuple[int, dict[str, Any], Position]]:
    """Yields step, items and position of each readable checkpoint, newest first.

    Lists the folder again before each, because a training may save and delete meanwhile: a new
    checkpoint comes next, and a deleted one is not reported as damaged.

    Raises:
        UserError: none can be read, or one holds values that are not finite.
    """
    tried: set[int] = set()
    readable = 0
    while untried := set(steps := saved_steps(directory)) - tried:
        tried.add(step := max(untried))
        folder = folder_of(directory, step)
        try:
            items, position = _read_quietly(folder, like)
        except Exception as error:  # orbax raises many kinds, even plain Exception
            if saved_steps(directory) == steps:
                logging.warning(
                    "%s cannot be read: %s", folder, str(error).partition("\n")[0][:200]
                )
        else:
            readable += 1
            _check_finite(folder, items)
            yield step, items, position
    if tried and not readable:
        raise UserError(
            f"no checkpoint in {directory} can be read: restore one, or use another "
            "--workdir to start again"
        )


def _check_finite(folder: epath.Path, items: dict[str, Any]) -> None:
    """Checks that all values are finite; nothing useful can be decoded or trained from others.

    Raises:
        UserError: some are not.
    """
    for path, finite in jax.tree.leaves_with_path(_are_finite(items)):
        if not finite:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise UserError(
                f"{folder} holds values that are not finite, in {name}: remove it to use the one "
                "before it, or restore it from a copy"
            )


@jax.jit
def _are_finite(items: dict[str, Any]) -> dict[str, Any]:
    return jax.tree.map(lambda leaf: jnp.all(jnp.isfinite(leaf)), items)


def _read_quietly(folder: epath.Path, like: dict[str, Any]) -> tuple[dict[str, Any], Position]:
    """Reads as `_read` does, and leaves nothing behind that would print a traceback later."""
    show_tracebacks = hide_tracebacks()
    try:
        return _read(folder, like)
    except Exception as error:
        failure = error.with_traceback(None)
        collect_failures()
    finally:
        show_tracebacks()
    raise failure


def _read(folder: epath.Path, like: dict[str, Any]) -> tuple[dict[str, Any], Position]:
    """Reads some items of a checkpoint and its position, after checking their files."""
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
    if position.pop(HAS_MANIFEST, False) and not verified:
        raise ValueError("its manifest is missing")
    return {name: items[name] for name in like}, position
