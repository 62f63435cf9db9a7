# SPDX-License-Identifier: Apache-2.0
"""Checkpoint folders, named by their step: finished and unfinished ones.

On a disk, an unfinished checkpoint has a temporary name. A bucket, gs://BUCKET/FOLDER, cannot
rename folders atomically; there, a file that is written last marks a finished checkpoint.
"""

import importlib.util
import os
import sys

from absl import logging
from etils import epath

from dat_jax.errors import UserError
from dat_jax.storage.paths import missing_target

DIGITS = 8  # minimum number of digits of a step in the name of its folder

_UNFINISHED = ".orbax-checkpoint-tmp"
_WHOLE = "commit_success.txt"
# Orbax searches with glob patterns, so it cannot find files in a folder with these in its path.
_IN_PATTERNS = "*?[]\\"


def stored(directory: epath.PathLike) -> epath.Path:
    """Returns the absolute path of a directory, or its address in a bucket.

    Raises:
        UserError: it is in a bucket, and no package for buckets is installed.
    """
    path = epath.Path(directory)
    if not in_bucket(path):
        return path.resolve()
    if not any(map(importlib.util.find_spec, ("gcsfs", "tensorflow"))):
        raise UserError(f"{path} is in a bucket, which needs gcsfs: pip install gcsfs")
    return path


def check_stored(folder: str, key: str) -> None:
    """Checks that orbax can create a folder and read back what it writes there.

    Args:
        folder: the folder.
        key: the option that names it, for messages.

    Raises:
        UserError: it cannot.
    """
    if target := missing_target(folder):
        raise UserError(
            f"{folder} is a link to {target}, which is missing: create or mount that, or give "
            f"another {key}"
        )
    try:
        as_utf8 = os.fsencode(folder).decode()
    except UnicodeDecodeError:
        as_utf8 = None
    except UnicodeEncodeError:  # the locale lacks a character
        as_utf8 = ""
    if as_utf8 is None or set(folder).intersection(_IN_PATTERNS):
        raise UserError(
            f"checkpoints below {folder} could not be read back: give a {key} whose path is valid "
            f"UTF-8 without {' '.join(_IN_PATTERNS)}"
        )
    if as_utf8 != folder:
        raise UserError(
            f"{key}: the locale reads names as {sys.getfilesystemencoding()}, but {folder} is in "
            "UTF-8: set PYTHONUTF8=1 and run again"
        )


def in_bucket(path: epath.Path) -> bool:
    """Returns whether a path is in a bucket, which checks its files for damage itself."""
    return str(path).startswith("gs://")


def checkpoint_folders(directory: epath.Path) -> tuple[list[epath.Path], list[epath.Path]]:
    """Returns the finished and the unfinished checkpoints in a directory, which may be missing.

    Raises:
        OSError: the directory cannot be listed.
        UserError: the bucket cannot be listed.
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
    """Returns the steps with a checkpoint in `directory`, which may be missing, oldest first."""
    whole, _ = checkpoint_folders(stored(directory))
    return sorted(int(folder.name) for folder in whole)


def folder_of(directory: epath.Path, step: int) -> epath.Path:
    """Returns the folder of a step's checkpoint."""
    return directory / f"{step:0{DIGITS}}"


def set_aside(folder: epath.Path) -> None:
    """Renames a damaged checkpoint, replacing an earlier one; some of its files may be useful."""
    damaged = folder.with_suffix(".damaged")
    damaged.rmtree(missing_ok=True)
    folder.rename(damaged)
    logging.warning("renamed %s to %s, which you may delete", folder, damaged.name)
