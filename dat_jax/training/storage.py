# SPDX-License-Identifier: Apache-2.0
"""Folders of checkpoints, each named by its step: whole ones, and those that are being written.

On a disk, an unfinished one has another name until it is whole. In a bucket, gs://BUCKET/FOLDER,
where nothing can be renamed at once, a file in it says at the end that it is whole.
"""

import importlib.util
import os
import sys

from absl import logging
from etils import epath

from dat_jax.errors import UserError
from dat_jax.paths import missing_target

DIGITS = 8  # of a step in the name of its folder, at the least

_UNFINISHED = ".orbax-checkpoint-tmp"
_WHOLE = "commit_success.txt"
# Orbax looks for files by patterns, so that it cannot find those below such a folder again.
_IN_PATTERNS = "*?[]\\"


def stored(directory: epath.PathLike) -> epath.Path:
    """Returns the absolute path of a directory, or the address of one in a bucket.

    Raises:
        UserError: it is in a bucket, and nothing is installed that reads these.
    """
    path = epath.Path(directory)
    if not in_bucket(path):
        return path.resolve()
    if not any(map(importlib.util.find_spec, ("gcsfs", "tensorflow"))):
        raise UserError(f"{path} can only be read and written by gcsfs: pip install gcsfs")
    return path


def check_stored(folder: str, key: str) -> None:
    """Makes sure that storage can make a folder, and read back what it writes below it.

    Raises:
        UserError: it could not; `key` is what named the folder.
    """
    if target := missing_target(folder):
        raise UserError(
            f"{folder} is a link to {target}, which is missing: make or mount that, or name "
            f"another {key}"
        )
    try:
        as_utf8 = os.fsencode(folder).decode()
    except UnicodeDecodeError:
        as_utf8 = None
    except UnicodeEncodeError:  # by the locale, which has no such character
        as_utf8 = ""
    if as_utf8 is None or set(folder).intersection(_IN_PATTERNS):
        raise UserError(
            f"checkpoints below {folder} could not be read back: name a {key} whose path is valid "
            f"UTF-8 without {' '.join(_IN_PATTERNS)}"
        )
    if as_utf8 != folder:
        raise UserError(
            f"{key}: the locale reads names as {sys.getfilesystemencoding()}, and {folder} is in "
            "UTF-8: set PYTHONUTF8=1 and run again"
        )


def in_bucket(path: epath.Path) -> bool:
    """True if a path leads into a bucket, which checks what it keeps by itself."""
    return str(path).startswith("gs://")


def checkpoint_folders(directory: epath.Path) -> tuple[list[epath.Path], list[epath.Path]]:
    """Returns the checkpoints in a directory, which may be missing, and the unfinished ones.

    Raises:
        OSError: it cannot be looked into, which is not to be taken for an empty one.
        UserError: it is in a bucket that cannot.
    """
    whole, unfinished = list[epath.Path](), list[epath.Path]()
    for path in _entries(directory):
        if path.name.endswith(_UNFINISHED):
            unfinished.append(path)
        elif path.name.isdecimal() and len(path.name) >= DIGITS:
            begun = in_bucket(path) and not (path / _WHOLE).exists()
            (unfinished if begun else whole).append(path)
    return whole, unfinished


def _entries(directory: epath.Path) -> list[epath.Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except Exception as error:
        if not in_bucket(directory):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{directory} cannot be read, {reason}: fix that and run again") from None


def saved_steps(directory: epath.PathLike) -> list[int]:
    """The steps that have a checkpoint in `directory`, which may be missing, oldest first."""
    whole, _ = checkpoint_folders(stored(directory))
    return sorted(int(folder.name) for folder in whole)


def folder_of(directory: epath.Path, step: int) -> epath.Path:
    """The folder of a step's checkpoint."""
    return directory / f"{step:0{DIGITS}}"


def set_aside(folder: epath.Path) -> None:
    """Renames a damaged checkpoint, in place of one of the same step: part of it may be whole."""
    damaged = folder.with_suffix(".damaged")
    damaged.rmtree(missing_ok=True)
    folder.rename(damaged)
    logging.warning("%s is now %s, which you may delete", folder, damaged.name)
