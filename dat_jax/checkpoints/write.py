# SPDX-License-Identifier: Apache-2.0
"""Saving checkpoints atomically, in the background of training.

With several processes, all save together, and the first creates and removes folders.
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

from dat_jax.checkpoints.folders import DIGITS, checkpoint_folders, in_bucket, saved_steps, stored
from dat_jax.checkpoints.manifest import write_manifest
from dat_jax.checkpoints.orbax_errors import explained, hide_tracebacks, wait_for_threads
from dat_jax.checkpoints.read import HAS_MANIFEST, KEPT_AS_BEST, STOPPED, Position
from dat_jax.checkpoints.state import TrainState
from dat_jax.errors import Stopped
from dat_jax.runtime.processes import by_first, is_first
from dat_jax.storage.stamped import write_stamped


class Checkpoints:
    """The checkpoints of one training; use it as a context.

    `save` returns once the arrays are copied. Background threads write them and their checksums,
    and then rename the folder, so that others see only complete checkpoints. A failure there is
    raised by the next `save` or at the end.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        keep: int | None = None,
        stopped_at: int | None = None,
        last_saved: Path | None = None,
    ) -> None:
        """Opens `directory`, which may not exist yet, and removes what interrupted saves left.

        Args:
            directory: the folder of checkpoints.
            keep: number of newest checkpoints to keep; by default all.
            stopped_at: a step that was saved because training was stopped; the next save replaces
                it.
            last_saved: a file for the last saved step, to notice missing checkpoints.
        """
        self._directory, self._last_saved = stored(directory), last_saved
        self._failed = False
        self._kept = _Kept(keep, stopped_at)
        self._show_tracebacks = hide_tracebacks()
        by_first(self._remove_unfinished)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._kept,
            step_format_fixed_length=DIGITS,
            create=True,
            async_options=ocp.AsyncOptions(
                post_finalization_callback=self._complete,
                barrier_sync_fn=_wait_for_all,
                # If true and a folder cannot be created, its writers wait for it ten minutes.
                create_directories_asynchronously=False,
            ),
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        failure = self._close()
        if failure is None and not self._failed:
            self._show_tracebacks()  # after a failure, more of them come when objects are deleted
        if failure is None or self._failed:
            return
        if error is None or isinstance(error, Stopped):  # its message says that all is saved
            raise self._explained(failure) from None
        logging.warning("%s", self._explained(failure))

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, or will have once it is written, oldest first."""
        return sorted(self._manager.all_steps())

    @property
    def lasting(self) -> list[int]:
        """Those of `steps` that the next save does not drop because training was stopped there."""
        return [step for step in self.steps if step != self._kept.stopped_at]

    def keep_best(self, step: int | None) -> None:
        """Makes the next saves keep this step's checkpoint, too, instead of an earlier best one."""
        self._kept.best = step

    def save(self, state: TrainState, position: Position, *, stopped: bool = False) -> None:
        """Saves a checkpoint.

        Args:
            state: the training state.
            position: the position in the data.
            stopped: whether it is saved only because training stops here.

        Raises:
            UserError: the system could not write this checkpoint or the one before.
            RuntimeError: orbax declined to save, for example a step that it already has.
        """
        self._step = int(state.step)
        marks: Position = {HAS_MANIFEST: not in_bucket(self._directory)}
        marks |= {STOPPED: True} if stopped else {}
        if (best := self._kept.best) and best not in self._kept.newest([*self.steps, self._step]):
            marks[KEPT_AS_BEST] = best
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
        """Adds the manifest to the checkpoint that is being written, before it is renamed."""
        if not in_bucket(self._directory):
            _, (unfinished,) = checkpoint_folders(self._directory)
            write_manifest(Path(unfinished))
        if self._last_saved and is_first():
            write_stamped(self._last_saved, {"step": self._step})

    def _close(self) -> Exception | None:
        """Waits until everything is written; returns the first failure."""
        failures: list[Exception] = []
        for _ in range(3):  # a failure ends `close` and is raised once; two parts of orbax may fail
            try:
                self._manager.close()
            except Exception as failure:
                failures.append(failure)
            else:
                break
        wait_for_threads()
        with contextlib.suppress(OSError):  # the next launch tries again, and reports it
            if is_first():
                self._remove_unfinished()
        return failures[0] if failures else None

    def _remove_unfinished(self) -> None:
        _, unfinished = checkpoint_folders(self._directory)
        for folder in unfinished:
            folder.rmtree()

    def _explained(self, failure: Exception) -> Exception:
        return explained(failure, self._directory, saved_steps(self._directory))


@dataclasses.dataclass
class _Kept(PreservationPolicy):
    """Keeps the newest checkpoints and the best one, and drops one of a stop after which training
    has resumed."""

    count: int | None
    stopped_at: int | None
    best: int | None = None

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: PreservationContext
    ) -> Sequence[bool]:
        """Returns for each checkpoint, oldest first, whether to keep it."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*self.newest(steps), self.best}
        return [step in kept for step in steps]

    def newest(self, steps: Sequence[int]) -> Sequence[int]:
        """Returns the steps, oldest first, that are kept even if another one is the best."""
        counted = [step for step in steps if step != self.stopped_at or step == steps[-1]]
        return counted[-self.count :] if self.count else counted


def _wait_for_all(*, key: str, timeout_ms: int) -> None:
    """Waits at a barrier, unless this process is failing: all would wait for each other for twenty
    minutes before any of them shows the error."""
    if sys.exception() is None:
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)
