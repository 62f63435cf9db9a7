# SPDX-License-Identifier: Apache-2.0
"""Complete and unfinished checkpoint folders, on disk and in a bucket."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
from etils import epath
from etils.epath import backend, gpath

from dat_jax.checkpoints.folders import saved_steps, set_aside, stored
from dat_jax.checkpoints.write import Checkpoints
from dat_jax.errors import UserError


class Bucket(backend._OsPathBackend):
    """A fake bucket that maps gs://BUCKET to a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _there(self, path: Any) -> Any:
        return os.fspath(path).replace("gs://", f"{self._folder}/")

    def isdir(self, path: Any) -> bool:
        return super().isdir(self._there(path))

    def exists(self, path: Any) -> bool:
        return super().exists(self._there(path))

    def listdir(self, path: Any) -> list[str]:
        return super().listdir(self._there(path))

    def rmtree(self, path: Any) -> None:
        super().rmtree(self._there(path))

    def rename(self, path: Any, dst: Any) -> None:
        super().rename(self._there(path), self._there(dst))


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder behind gs://bucket."""
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", Bucket(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    return tmp_path / "bucket"


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_with_other_names_are_not_checkpoints(tmp_path: Path):
    names = (
        "00000007",
        "123456789",
        "00000008.damaged",
        "0000009",
        "00000009.orbax-checkpoint-tmp",
    )
    make(tmp_path, *(f"{name}/file" for name in names), "0000000x/file")
    assert saved_steps(tmp_path) == [7, 123456789]


def test_a_checkpoint_in_a_bucket_counts_once_committed(bucket: Path):
    make(bucket, "run/00000003/commit_success.txt", "run/00000007/params/data")
    assert saved_steps("gs://bucket/run") == [3]
    assert saved_steps("gs://bucket/other") == []


def test_training_removes_unfinished_checkpoints_from_a_bucket(
    bucket: Path, monkeypatch: pytest.MonkeyPatch
):
    make(bucket, "run/00000003/commit_success.txt", "run/00000007/params/data")
    monkeypatch.setattr("orbax.checkpoint.CheckpointManager", lambda *_, **__: None)
    Checkpoints("gs://bucket/run")
    assert [path.name for path in (bucket / "run").iterdir()] == ["00000003"]


def test_a_damaged_checkpoint_in_a_bucket_replaces_an_older_damaged_one(bucket: Path):
    make(bucket, "run/00000003/commit_success.txt", "run/00000003.damaged/old")
    set_aside(epath.Path("gs://bucket/run/00000003"))
    assert saved_steps("gs://bucket/run") == []
    assert [path.name for path in bucket.rglob("*.txt")] == ["commit_success.txt"]
    assert not list(bucket.rglob("old"))


def test_an_unreachable_bucket_is_an_error(bucket: Path, monkeypatch: pytest.MonkeyPatch):
    """If it counted as empty, training would start from scratch."""

    def refuse(*_: Any) -> None:
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(Bucket, "listdir", refuse)
    monkeypatch.setattr(Bucket, "exists", lambda *_: False)
    with pytest.raises(UserError, match="gs://bucket/run cannot be read, no network: fix that"):
        saved_steps("gs://bucket/run")


def test_a_bucket_needs_gcsfs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="which needs gcsfs: pip install gcsfs"):
        stored("gs://bucket/run")
