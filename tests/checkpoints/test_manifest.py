# SPDX-License-Identifier: Apache-2.0
"""Manifests: which files they cover, and damaged compared with missing manifests."""

from pathlib import Path

import pytest

from dat_jax.checkpoints.manifest import verify, write_manifest
from dat_jax.storage.checksums import read_checksums


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with two items and one file outside them."""
    for name, text in {"params/a": "1", "params/d/b": "2", "position/c": "", "extra": "4"}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_every_file_of_every_item_is_covered(checkpoint: Path):
    write_manifest(checkpoint)
    covered = read_checksums(checkpoint / "manifest.json")
    assert {item: list(files) for item, files in covered.items()} == {
        "params": ["a", "d/b"],
        "position": ["c"],
    }
    assert verify(checkpoint, ["params", "position"])


def test_without_a_manifest_nothing_is_verified(checkpoint: Path):
    assert not verify(checkpoint, ["params"])


def test_only_the_requested_items_are_verified(checkpoint: Path):
    write_manifest(checkpoint)
    (checkpoint / "position" / "c").unlink()
    (checkpoint / "params" / "more").write_text("not covered")
    assert verify(checkpoint, ["params"])
    with pytest.raises(FileNotFoundError):
        verify(checkpoint, ["params", "position"])


def test_a_damaged_file_is_named(checkpoint: Path):
    write_manifest(checkpoint)
    (checkpoint / "params" / "d" / "b").write_text("3")
    with pytest.raises(ValueError, match="params/d/b is damaged"):
        verify(checkpoint, ["params"])


@pytest.mark.parametrize("old", ['"params": {', '"sha256": "', '"a": ', '"d/b": ', "}\n"])
def test_a_damaged_manifest_is_an_error(checkpoint: Path, old: str):
    write_manifest(checkpoint)
    path = checkpoint / "manifest.json"
    whole = path.read_text()
    assert old in whole
    flipped = chr(ord(old[1]) ^ 1) if len(old) > 2 else "|"
    path.write_text(whole.replace(old, old[0] + flipped + old[2:]))
    with pytest.raises((ValueError, OSError)):
        verify(checkpoint, ["params"])
