# SPDX-License-Identifier: Apache-2.0
"""A folder is written whole or stays as it was."""

from pathlib import Path

import pytest

from dat_jax.errors import UserError
from dat_jax.export.folder import new_folder


def test_what_is_written_appears_when_it_is_complete(tmp_path: Path):
    target = tmp_path / "new" / "folder"
    with new_folder(target) as folder:
        (folder / "part").mkdir()
        (folder / "part" / "file").write_text("text")
        assert not (target / "part").exists()
    assert [path.name for path in target.iterdir()] == ["part"]
    assert (target / "part" / "file").read_text() == "text"


def write_and_fail(target: Path) -> None:
    with new_folder(target) as folder:
        (folder / "file").write_text("half")
        raise ValueError("no more")


def test_a_failure_leaves_nothing(tmp_path: Path):
    target = tmp_path / "new" / "folder"
    with pytest.raises(ValueError, match="no more"):
        write_and_fail(target)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path):
    (tmp_path / ".unfinished").mkdir()
    (tmp_path / ".unfinished" / "old").write_text("half")
    (tmp_path / ".lock").write_text("process 1\n")
    with new_folder(tmp_path) as folder:
        (folder / "file").write_text("text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_holds_something_is_refused(tmp_path: Path):
    (tmp_path / "b").write_text("mine")
    (tmp_path / "a").write_text("mine")
    message = f"--output={tmp_path} holds a already: name a new folder"
    with pytest.raises(UserError) as caught, new_folder(tmp_path):
        pass
    assert str(caught.value) == message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
