# SPDX-License-Identifier: Apache-2.0
"""Manifests of checkpoints: a checksum of every file, to detect damage.

A checkpoint is a folder with one folder per item; its `manifest.json` holds the checksums of each
item's files.
"""

from collections.abc import Iterable
from pathlib import Path

from dat_jax.storage.checksums import Checksum, Checksums, read_checksums, write_checksums

_NAME = "manifest.json"


def write_manifest(checkpoint: Path) -> None:
    """Hashes all files of all items and writes the manifest."""
    items = sorted(folder for folder in checkpoint.iterdir() if folder.is_dir())
    write_checksums(checkpoint / _NAME, **{item.name: _checksums(item) for item in items})


def verify(checkpoint: Path, items: Iterable[str]) -> bool:
    """Hashes all files of `items`, even if their times are unchanged, and checks them.

    Returns:
        False if the checkpoint has no manifest to check against, else True.

    Raises:
        ValueError: a file or the manifest is damaged.
        OSError: a file is missing or cannot be read.
    """
    try:
        manifest = read_checksums(checkpoint / _NAME)
    except FileNotFoundError:
        return False
    for item in items:
        if item not in manifest:
            raise ValueError(f"{_NAME} is damaged")
        for name, expected in manifest[item].items():
            if Checksum.of(checkpoint / item / name).sha256 != expected.sha256:
                raise ValueError(f"{item}/{name} is damaged")
    return True


def _checksums(folder: Path) -> Checksums:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): Checksum.of(path) for path in files}
