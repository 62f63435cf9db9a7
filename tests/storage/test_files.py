# SPDX-License-Identifier: Apache-2.0
"""Files are written completely or not at all, and a folder has one writer."""

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dat_jax.errors import UserError
from dat_jax.storage.files import Unfinished, sole_writer, write_text


@contextlib.contextmanager
def size_limit(size: int) -> Iterator[None]:
    """Limits the files of this process to `size` bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_concurrent_writers_leave_the_text_of_one(tmp_path: Path):
    path, texts = tmp_path / "file", [f"{n}\n" * 50_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            list(pool.map(lambda text: write_text(path, text), texts))
            assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_writer_waits_for_the_first(tmp_path: Path):
    first = Unfinished(tmp_path / "file")
    with ThreadPoolExecutor() as pool:
        with first as (file,):
            file.write("the first's ")
            second = pool.submit(write_text, tmp_path / "file", "the second's")
            file.write("text")
            first.finish()
            assert (tmp_path / "file").read_text() == "the first's text"
            assert not second.done()
        second.result()
    assert (tmp_path / "file").read_text() == "the second's"


def test_the_leftover_of_a_killed_writer_is_overwritten(tmp_path: Path):
    (tmp_path / "file.unfinished").write_text("a longer text than ours")
    write_text(tmp_path / "file", "ours")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["ours"]


@pytest.mark.parametrize(("size", "room"), [(100, 10), (1 << 21, 1 << 20)])
def test_a_full_disk_leaves_all_files_unchanged(tmp_path: Path, size: int, room: int):
    """A short text fails when the buffer is flushed, a long one when it is written."""
    names = ("one", "two", "three")
    for name in names:
        write_text(tmp_path / name, "before")
    unfinished = Unfinished(*(tmp_path / name for name in names))
    with size_limit(room), pytest.raises(OSError, match="too large"), unfinished as files:
        for file, text in zip(files, ("whole", "x" * size, "whole"), strict=True):
            file.write(text)
        unfinished.finish()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        names, "before"
    )


def test_the_error_for_a_second_writer_names_the_first(tmp_path: Path):
    folder = tmp_path / "a" / "folder"
    with sole_writer(folder):
        for name in (folder, tmp_path / "a" / ".." / "a" / "folder"):
            who = f"is being written by process {os.getpid()} on "
            with pytest.raises(UserError, match=who), sole_writer(name):
                pass
        (folder / "file").write_text("ours")
    with sole_writer(folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_an_unused_folder_is_not_left_behind(tmp_path: Path):
    kept = tmp_path / "kept"
    kept.mkdir()
    for folder in (kept, tmp_path / "new" / "folder"):
        with pytest.raises(UserError, match="no"), sole_writer(folder):
            raise UserError("no")
    assert list(tmp_path.iterdir()) == [kept]
    assert list(kept.iterdir()) == []


def test_a_full_disk_leaves_no_new_folder(tmp_path: Path):
    with size_limit(0), pytest.raises(OSError, match="too large"), sole_writer(tmp_path / "new"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_does_not_block_others(tmp_path: Path):
    program = f"""
import pathlib, sys, time
from dat_jax.storage.files import sole_writer
with sole_writer(pathlib.Path({str(tmp_path)!r})):
    print("ready", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(UserError, match=f"process {process.pid} "), sole_writer(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with sole_writer(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def failing(number: int) -> Callable[[object, int], None]:
        def flock(file: object, operation: int) -> None:
            raise OSError(number, os.strerror(number))

        return flock

    monkeypatch.setattr("fcntl.flock", failing(errno.ENOLCK))
    with sole_writer(tmp_path / "folder"):
        write_text(tmp_path / "folder" / "file", "text")
    assert (tmp_path / "folder" / "file").read_text() == "text"
    monkeypatch.setattr("fcntl.flock", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"), sole_writer(tmp_path / "folder"):
        pass
