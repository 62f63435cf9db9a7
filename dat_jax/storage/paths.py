# SPDX-License-Identifier: Apache-2.0
"""Paths as users write them, made absolute, with links resolved."""

import os
from pathlib import Path

from dat_jax.errors import UserError


def as_path(name: str) -> Path:
    """Returns the absolute path of `name`, with a leading `~` or `~USER` expanded.

    An absolute path stays right if the process changes its folder.

    Raises:
        UserError: `name` is a URL.
    """
    if "://" in name:
        raise UserError(
            f"{name} is not a path on this machine: give a local path; only "
            "training.checkpoint_folder may be elsewhere"
        )
    return Path(os.path.expanduser(name)).absolute()


def destination(name: str) -> Path:
    """Returns the absolute path of `name` with links resolved; it need not exist."""
    return Path(os.path.realpath(as_path(name)))


def missing_target(path: str | Path) -> str | None:
    """Returns the missing target of a broken link, and None for any other path."""
    return os.path.realpath(path) if os.path.islink(path) and not os.path.exists(path) else None


def same_destination(one: str, other: str) -> bool:
    """Returns whether two names lead to the same path."""
    return one == other or destination(one) == destination(other)
