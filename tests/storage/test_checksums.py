# SPDX-License-Identifier: Apache-2.0
"""Checksums notice a changed byte and do not read unchanged files again."""

import os
from pathlib import Path

import pytest

from dat_jax.storage.checksums import Checksum, read_checksums, write_checksums


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"some text")
    return path


def touch(path: Path) -> None:
    """Moves a file's modification time by a millisecond."""
    time = path.stat().st_mtime_ns + 1_000_000
    os.utime(path, ns=(time, time))


@pytest.mark.parametrize("contents", [b"some texT", b"some tex", b"some text ", b""])
def test_changed_contents_are_noticed(file: Path, contents: bytes):
    checksum = Checksum.of(file)
    file.write_bytes(contents)
    touch(file)
    assert checksum.renewed(file) is None


def test_a_touched_file_is_hashed_once(file: Path, monkeypatch: pytest.MonkeyPatch):
    checksum = Checksum.of(file)
    touch(file)
    renewed = checksum.renewed(file)
    assert renewed is not None
    assert (renewed.sha256, renewed.mtime_ns) == (checksum.sha256, file.stat().st_mtime_ns)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("it was hashed again"))
    assert renewed.renewed(file) == renewed


def test_checksums_survive_a_round_trip(file: Path, tmp_path: Path):
    one = {str(file): Checksum.of(file)}
    write_checksums(tmp_path / "sums.json", prepared=one, source={})
    assert read_checksums(tmp_path / "sums.json") == {"prepared": one, "source": {}}


@pytest.mark.parametrize("contents", ["", "[]", '{"prepared": 1}', '{"prepared": {"a": {}}}'])
def test_a_damaged_file_is_noticed(tmp_path: Path, contents: str):
    (tmp_path / "sums.json").write_text(contents)
    with pytest.raises(ValueError):
        read_checksums(tmp_path / "sums.json")
