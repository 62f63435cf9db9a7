# SPDX-License-Identifier: Apache-2.0
"""Paths as users write them, and where they lead."""

import os
from pathlib import Path

from dat_jax.errors import UserError


def as_path(name: str) -> Path:
    """The absolute path of this name, in which `~` or `~USER` at the start is a home.

    What keeps it may outlive the process's stay in this folder.

    Raises:
        UserError: it is the address of something elsewhere.
    """
    if "://" in name:
        raise UserError(
            f"{name} is no path on this machine: name one; training.checkpoint_folder alone may be "
            "elsewhere"
        )
    return Path(os.path.expanduser(name)).absolute()


def destination(name: str) -> Path:
    """The absolute path, without links, to which a name leads; nothing need be there yet."""
    return Path(os.path.realpath(as_path(name)))


def missing_target(path: str | Path) -> str | None:
    """Where a link leads, if nothing is there; None of any other path."""
    return os.path.realpath(path) if os.path.islink(path) and not os.path.exists(path) else None


def same_destination(one: str, other: str) -> bool:
    """True if two names lead to one place."""
    return one == other or destination(one) == destination(other)
