# SPDX-License-Identifier: Apache-2.0
"""Checkpoints are restored exactly, and damaged ones are noticed."""

import errno
import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from dat_jax.checkpoints import read, write
from dat_jax.checkpoints.folders import saved_steps
from dat_jax.checkpoints.manifest import verify
from dat_jax.checkpoints.read import average, restore
from dat_jax.checkpoints.state import TrainState
from dat_jax.checkpoints.write import Checkpoints
from dat_jax.errors import Stopped, UserError
from dat_jax.training.optimizer import make_optimizer
from tests.tiny import tiny_config

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def make_state(step: int) -> TrainState:
    """A small state whose parameters encode the step."""
    params = {"kernel": jnp.full((2, 3), float(step)), "bias": jnp.arange(3.0) + step}
    state = TrainState.create(params, make_optimizer(tiny_config()))
    return state._replace(step=jnp.asarray(step, jnp.int32))


LIKE = make_state(0)


def save(directory: Path, *steps: int, keep: int | None = None) -> None:
    """Saves the states of these steps in order."""
    with Checkpoints(directory, keep) as checkpoints:
        for step in steps:
            checkpoints.save(make_state(step), {"seed": 0, "epoch": 1, "next_batch": step})


def stop(directory: Path, step: int, keep: int | None = None) -> None:
    """Saves a state as training does when it is stopped."""
    with Checkpoints(directory, keep) as checkpoints:
        checkpoints.save(make_state(step), {}, stopped=True)


def flipped(files: Iterable[Path]) -> Iterator[Path]:
    """Yields each file while one of its bits is flipped, with its times kept, like disk damage."""
    for file in files:
        whole, times = file.read_bytes(), file.stat()
        middle = len(whole) // 2
        file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        yield file
        file.write_bytes(whole)


def files_of(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert files
    return files


def remove_manifest_as_in_old_version(folder: Path) -> None:
    """Turns a checkpoint into one of version 0.1.0, which had no manifest and no mark of one."""
    (folder / "manifest.json").unlink(missing_ok=True)
    position = folder / "position" / "metadata"
    values = json.loads(position.read_text())
    assert values.pop("has_manifest")
    position.write_text(json.dumps(values))


def test_averages_do_not_depend_on_stops(tmp_path: Path):
    """Training is stopped twice, and killed before it removes the second stop's checkpoint."""
    save(tmp_path / "whole", 2, 4, 6, 8, keep=3)
    stopped = tmp_path / "stopped"
    save(stopped, 2, 4, keep=3)
    stop(stopped, 5, keep=3)
    assert average(stopped, LIKE.params, at_most=2).steps == [5, 4]  # includes the stop
    restored = restore(stopped, LIKE)
    assert restored is not None and read.was_stopped(restored[1])
    with Checkpoints(stopped, 3, stopped_at=5) as checkpoints:
        checkpoints.save(make_state(6), {})
    assert saved_steps(stopped) == [2, 4, 6]
    stop(stopped, 7, keep=3)
    assert saved_steps(stopped) == [4, 6, 7]
    save(stopped, 8)
    assert saved_steps(stopped) == [4, 6, 7, 8]
    for at_most in (1, 2, 3):
        ours, theirs = (
            average(folder, LIKE.params, at_most) for folder in (stopped, tmp_path / "whole")
        )
        assert ours.steps == theirs.steps == [8, 6, 4][:at_most]
        jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)


def test_reading_different_checkpoints_per_process_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save(tmp_path, 3, 7)
    monkeypatch.setattr(read, "gather", lambda steps: [steps, [3]])
    for reader in (lambda: average(tmp_path, LIKE.params, 1), lambda: restore(tmp_path, LIKE)):
        with pytest.raises(UserError, match="processes read different checkpoints"):
            reader()


def test_state_and_position_are_restored_exactly(tmp_path: Path):
    save(tmp_path, 3, 7)
    restored = restore(tmp_path, LIKE)
    assert restored is not None
    state, position = restored
    jax.tree.map(np.testing.assert_array_equal, state, make_state(7))
    assert position == {"seed": 0, "epoch": 1, "next_batch": 7}


def test_only_the_newest_are_kept(tmp_path: Path):
    save(tmp_path, 1, 2, 3, 4, keep=2)
    assert saved_steps(tmp_path) == [3, 4]


def test_a_relative_directory_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    save(Path("here"), 5)
    assert restore(Path("here"), LIKE) is not None


def test_the_newest_checkpoints_are_averaged(tmp_path: Path):
    save(tmp_path, 1, 2, 6)
    steps, params, position = average(tmp_path, LIKE.params, at_most=2)
    assert steps == [6, 2]
    np.testing.assert_allclose(params["kernel"], 4.0)
    np.testing.assert_allclose(params["bias"], np.arange(3) + 4.0)
    assert position["next_batch"] == 6


def test_all_checkpoints_are_averaged_if_there_are_fewer(tmp_path: Path):
    save(tmp_path, 1, 2)
    steps, params, _ = average(tmp_path, LIKE.params, at_most=3)
    assert steps == [2, 1]
    np.testing.assert_allclose(params["kernel"], 1.5)


def test_reading_a_missing_folder_creates_nothing(tmp_path: Path):
    new = tmp_path / "new"
    assert restore(new, LIKE) is None
    with pytest.raises(UserError, match="holds no checkpoint: train a model first"):
        average(new, LIKE.params, at_most=3)
    assert not new.exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "unfinished"])
def test_a_damaged_newest_checkpoint_is_skipped(tmp_path: Path, damage: str):
    save(tmp_path, 3, 7)
    newest = tmp_path / "00000007"
    if damage == "truncated":
        for file in files_of(newest):
            file.write_bytes(file.read_bytes()[:3])
    elif damage == "empty":
        shutil.rmtree(newest)
        newest.mkdir()
    else:
        newest.rename(tmp_path / "00000007.orbax-checkpoint-tmp")
    restored = restore(tmp_path, LIKE)
    assert restored is not None
    assert int(restored[0].step) == 3
    save(tmp_path, 5, 7)
    assert saved_steps(tmp_path) == [3, 5, 7]
    restored = restore(tmp_path, LIKE)
    assert restored is not None
    jax.tree.map(np.testing.assert_array_equal, restored[0], make_state(7))


def test_a_flipped_bit_in_any_file_is_noticed(tmp_path: Path):
    save(tmp_path, 3)
    items = ["params", "optimizer", "position"]
    files = [file for item in items for file in files_of(tmp_path / "00000003" / item)]
    assert verify(tmp_path / "00000003", items)
    for file in flipped(files):
        with pytest.raises(ValueError, match=f"{file.name} is damaged"):
            verify(tmp_path / "00000003", items)


def test_resuming_notices_a_flipped_bit_in_any_item(tmp_path: Path):
    """Damaged checkpoints are renamed, even when one of the same step was renamed before."""
    save(tmp_path, 3, 7)
    newest = tmp_path / "00000007"
    for item in ("params", "optimizer", "position"):
        for file in flipped(files_of(newest / item)[:1]):
            restored = restore(tmp_path, LIKE)
            assert restored is not None
            assert int(restored[0].step) == 3, file
            assert saved_steps(tmp_path) == [3]
            shutil.copytree(tmp_path / "00000007.damaged", newest)


def test_averaging_notices_flipped_bits_only_in_the_items_it_reads(
    tmp_path: Path,
):
    save(tmp_path, 3, 7)
    newest = tmp_path / "00000007"
    for item, steps in {"params": [3], "position": [3], "optimizer": [7, 3]}.items():
        for file in flipped(files_of(newest / item)[:1]):
            assert average(tmp_path, LIKE.params, at_most=2).steps == steps, file
    assert average(tmp_path, LIKE.params, at_most=2).steps == [7, 3]


def test_a_missing_manifest_is_damage_except_in_old_versions(tmp_path: Path):
    save(tmp_path, 3, 7)
    (tmp_path / "00000007" / "manifest.json").unlink()
    assert average(tmp_path, LIKE.params, at_most=2).steps == [3]
    remove_manifest_as_in_old_version(tmp_path / "00000007")
    assert average(tmp_path, LIKE.params, at_most=2).steps == [7, 3]


def test_a_failed_read_gives_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Without a manifest orbax notices the damage while it reads many arrays, which all fail."""
    arrays = {f"kernel_{i}": jnp.arange(5_000.0) * i for i in range(50)}
    with Checkpoints(tmp_path) as checkpoints:
        for step in (3, 7):
            checkpoints.save(TrainState(jnp.asarray(step), arrays, arrays), {})
    newest = tmp_path / "00000007"
    remove_manifest_as_in_old_version(newest)
    for file in files_of(newest / "params"):
        if "d" in file.parts:
            file.write_bytes(file.read_bytes()[:-1000])
    assert average(tmp_path, arrays, at_most=2).steps == [3]
    gc.collect()
    (record,) = caplog.records
    assert "00000007 cannot be read: " in record.getMessage()
    assert "\n" not in record.getMessage()


def test_damage_to_all_checkpoints_is_one_clear_line(tmp_path: Path):
    save(tmp_path, 3)
    shutil.rmtree(tmp_path / "00000003" / "params")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read: restore one"):
        restore(tmp_path, LIKE)
    assert saved_steps(tmp_path) == [3]


@pytest.mark.parametrize("kind", [Exception, TypeError, RuntimeError])
def test_any_error_of_orbax_falls_back_to_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
):
    """Orbax raises a plain `Exception` for an array that is deleted during the read."""
    save(tmp_path, 3, 7)
    read = ocp.Checkpointer.restore

    def fail_at_7(self, folder, arguments):
        if folder.name == "00000007":
            raise kind("Encountered error while reading")
        return read(self, folder, arguments)

    monkeypatch.setattr(ocp.Checkpointer, "restore", fail_at_7)
    assert average(tmp_path, LIKE.params, at_most=2).steps == [3]


@pytest.mark.parametrize("part", ["params", "params/d", "position", "."])
def test_a_checkpoint_deleted_during_the_read_falls_back_to_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, part: str
):
    save(tmp_path, 1)

    def verify_while_training_continues(folder: Path, items: list[str]) -> bool:
        verified = verify(folder, items)
        if folder.name == "00000001":
            save(tmp_path, 2)
            shutil.rmtree(folder / part)
        return verified

    monkeypatch.setattr(read, "verify", verify_while_training_continues)
    steps, params, position = average(tmp_path, LIKE.params, at_most=1)
    assert (steps, position["next_batch"]) == ([2], 2)
    np.testing.assert_array_equal(params["kernel"], make_state(2).params["kernel"])
    assert not caplog.records  # this is not damage


def test_only_training_removes_unfinished_checkpoints(
    tmp_path: Path,
):
    save(tmp_path, 3)
    unfinished = tmp_path / "00000007.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "00000003", unfinished)
    before = files_of(tmp_path)
    assert average(tmp_path, LIKE.params, at_most=2).steps == [3]
    assert files_of(tmp_path) == before
    with Checkpoints(tmp_path):
        assert not unfinished.exists()


def test_later_steps_do_not_change_what_is_saved(tmp_path: Path):
    """The next step reuses the arrays' memory while the checkpoint is written."""
    params, moments = ({"kernel": jnp.zeros((2_000, 2_000))} for _ in range(2))
    state = TrainState(jnp.asarray(1, jnp.int32), params, moments)
    train_step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, {})
        for _ in range(20):
            state = train_step(state)
        jax.block_until_ready(state)
    restored = restore(tmp_path, state)
    assert restored is not None
    assert not np.asarray(restored[0].params["kernel"]).any()


REFUSED = """
import resource, sys
from pathlib import Path
import jax.numpy as jnp
from dat_jax.errors import UserError
from dat_jax.checkpoints.write import Checkpoints
from dat_jax.checkpoints.state import TrainState

def save(checkpoints, step, size, limit=resource.RLIM_INFINITY):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    arrays = {"kernel": jnp.sqrt(step + jnp.arange(size))}
    checkpoints.save(TrainState(jnp.asarray(step), arrays, arrays), {})

directory = Path(sys.argv[1])
with Checkpoints(directory, keep=1) as checkpoints:
    save(checkpoints, 1, 10)
for size, limit in [(10, 10), (10, 300), (10, 2_000), (10_000, 20_000)]:
    for steps in [2], [2, 3]:
        try:
            with Checkpoints(directory, keep=1) as checkpoints:
                for step in steps:
                    saved = step
                    save(checkpoints, step, size, limit)
                saved = "all"
        except UserError as error:
            print(saved, "|", error, "|", *sorted(path.name for path in directory.iterdir()))

try:
    with Checkpoints(directory / "gone") as checkpoints:
        directory.joinpath("gone").rmdir()
        directory.joinpath("gone").write_text("")
        save(checkpoints, 1, 10)
except UserError as error:
    print(error)
"""


def test_a_failed_save_is_one_line_and_keeps_the_previous_checkpoint(tmp_path: Path):
    """The limit on file sizes stops orbax's own files, the manifest or the arrays."""
    run = subprocess.run(
        [sys.executable, "-c", REFUSED, str(tmp_path)],
        cwd=REPOSITORY,
        env={"PATH": "", "JAX_PLATFORMS": "cpu", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,  # orbax may wait ten minutes for a folder that cannot be created
    )
    assert (run.returncode, run.stderr) == (0, "")
    message = (
        f"{tmp_path}: a checkpoint cannot be written, File too large: fix that and run again "
        "to resume from step 1 | 00000001"
    )
    *lines, no_folder = run.stdout.splitlines()
    assert lines == [f"all | {message}", f"3 | {message}"] * 4
    assert "cannot be written, Not a directory: fix that" in no_folder


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[ocp.CheckpointManager]:
    """The closed managers, each closed after two failures to write."""
    failures = [OSError(code, os.strerror(code)) for code in (errno.EIO, errno.ENOSPC)]
    close = ocp.CheckpointManager.close
    closed = []

    def fail_twice_then_close(self):
        if failures:
            raise failures.pop()
        close(self)
        closed.append(self)

    monkeypatch.setattr(ocp.CheckpointManager, "close", fail_twice_then_close)
    return closed


def test_an_error_propagates_and_a_lost_checkpoint_is_a_warning(
    tmp_path: Path, closed: list[ocp.CheckpointManager], caplog: pytest.LogCaptureFixture
):
    with pytest.raises(ZeroDivisionError), Checkpoints(tmp_path):
        _ = 1 / 0
    assert closed
    (record,) = caplog.records
    assert "cannot be written, No space left on device" in record.getMessage()
    assert "run again to start again" in record.getMessage()


def test_a_stop_whose_checkpoint_is_lost_is_an_error(
    tmp_path: Path, closed: list[ocp.CheckpointManager]
):
    with pytest.raises(UserError, match="No space left on device"), Checkpoints(tmp_path):
        raise Stopped("stopped at step 3, which is saved", 0)
    assert closed


def test_tracebacks_stay_hidden_after_a_failed_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shown = []
    monkeypatch.setattr(write, "hide_tracebacks", lambda: lambda: shown.append("again"))
    save(tmp_path, 1)
    assert shown == ["again"]

    def fail(*_: object, **__: object) -> bool:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ocp.CheckpointManager, "save", fail)
    with pytest.raises(UserError, match="No space left on device"):
        save(tmp_path, 2)
    assert shown == ["again"]


class LateWriter(threading.Thread):
    """A thread like orbax's that still writes after another one has failed."""

    __module__ = "orbax.threads"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def run(self) -> None:
        time.sleep(0.3)
        self._folder.mkdir(exist_ok=True)
        self._folder.joinpath("late").touch()

    def join(self, timeout: float | None = None) -> None:
        super().join(timeout)
        raise ValueError("raised again")


def test_a_failed_save_leaves_no_files_even_if_threads_still_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    writers = []

    def fail(folder: Path) -> None:
        writers.append(LateWriter(folder))
        writers[0].start()
        raise ZeroDivisionError

    monkeypatch.setattr(write, "write_manifest", fail)
    with pytest.raises(ZeroDivisionError):
        save(tmp_path, 3)
    threading.Thread.join(writers[0])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("part", ["params", "optimizer_state"])
def test_non_finite_values_are_refused(tmp_path: Path, part: str, value: float):
    """The files are intact; training wrote these values."""
    save(tmp_path, 1)
    broken = make_state(2)
    tree = jax.tree.map(
        lambda leaf: leaf.at[0, 0].set(value) if leaf.shape == (2, 3) else leaf,
        getattr(broken, part),
    )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(broken._replace(**{part: tree}), {})
    message = r"00000002 holds values that are not finite, in .*kernel: remove it to use the one"
    with pytest.raises(UserError, match=message):
        restore(tmp_path, LIKE)
    if part == "params":
        with pytest.raises(UserError, match=message):
            average(tmp_path, LIKE.params, 2)
    assert saved_steps(tmp_path) == [1, 2]
    shutil.rmtree(tmp_path / "00000002")
    assert average(tmp_path, LIKE.params, 2).steps == [1]
