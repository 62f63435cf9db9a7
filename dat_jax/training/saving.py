# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are saved while training goes on, each whole or not at all.

If several processes train, all save together, and the first makes and removes folders.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint.checkpoint_managers import PreservationContext, PreservationPolicy

from dat_jax.errors import Stopped
from dat_jax.formats import write_stamped
from dat_jax.processes import by_first, is_first
from dat_jax.training.checkpoint import HAS_MANIFEST, STOPPED, Position
from dat_jax.training.failures import explained, quieten, wait_for_threads
from dat_jax.training.manifest import write_manifest
from dat_jax.training.step import TrainState
from dat_jax.training.storage import DIGITS, checkpoint_folders, in_bucket, saved_steps, stored


class Checkpoints:
    """The checkpoints of one training, each under the step it was made at; use it as a context.

    Saving returns once the arrays are copied. Writing goes on behind it, checksums are taken, and
    only then is the checkpoint there for others, all at once. What fails there is raised by the
    next `save` or at the end.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        keep: int | None = None,
        stopped_at: int | None = None,
        last_saved: Path | None = None,
    ) -> None:
        """Opens `directory`, which may not exist yet.

        What an interrupted save left there is removed.

        Args:
            directory: where the checkpoints are.
            keep: how many of the newest stay; by default all.
            stopped_at: a step that has one because training was stopped; the next replaces it.
            last_saved: a file that keeps the last step saved, by which checkpoints are missed.
        """
        self._directory, self._last_saved = stored(directory), last_saved
        self._failed = False
        quieten()
        by_first(self._remove_unfinished)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_Newest(keep, stopped_at),
            step_format_fixed_length=DIGITS,
            create=True,
            async_options=ocp.AsyncOptions(
                post_finalization_callback=self._complete,
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
        self._step = int(state.step)
        marks = {HAS_MANIFEST: not in_bucket(self._directory)}
        marks |= {STOPPED: True} if stopped else {}
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(state.params),
            optimizer=ocp.args.StandardSave(state.optimizer_state),
            position=ocp.args.JsonSave(position | marks),
        )
        try:
            saved = self._manager.save(self._step, args=items)
        except Exception as failure:
            self._failed = True
            raise self._explained(failure) from None
        if not saved:
            raise RuntimeError(f"orbax declined to save step {self._step}")

    def _complete(self) -> None:
        """Adds the manifest to the checkpoint that is being written, before it gets its name."""
        if not in_bucket(self._directory):
            _, (unfinished,) = checkpoint_folders(self._directory)
            write_manifest(Path(unfinished))
        if self._last_saved and is_first():
            write_stamped(self._last_saved, {"step": self._step})

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


def _wait_for_all(*, key: str, timeout_ms: int) -> None:
    """A barrier, which a process that is failing passes: all would wait for it there, as it would
    for them, and none would learn why for twenty minutes."""
    if sys.exception() is None:
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)
