# SPDX-License-Identifier: Apache-2.0
"""JSON files stamped with a format number and the version that wrote them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dat_jax.errors import UserError
from dat_jax.storage.files import write_text
from dat_jax.storage.version import __version__

FORMAT = 8
UNSTAMPED = 1  # the format of version 0.1.0, which stamped nothing
_READ = (UNSTAMPED, 7, FORMAT)  # those between were never released
_UNSTAMPED_VERSION = "0.1.0"


class Stamped(NamedTuple):
    """The contents of a file and what its stamp says."""

    values: dict[str, Any]
    format: int
    version: str


def write_stamped(path: Path, values: Mapping[str, Any]) -> None:
    """Writes indented JSON with format and version; if that fails, the old file stays."""
    stamp = {"format": FORMAT, "version": __version__}
    write_text(path, json.dumps(stamp | dict(values), indent=2) + "\n")


def read_stamped(path: Path) -> Stamped:
    """Reads a file that `write_stamped` of this or an older version wrote.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is not a JSON object.
        UserError: it is of a later format, or of one that no released version wrote.
    """
    values = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no object")
    number = values.pop("format", UNSTAMPED)
    version = values.pop("version", _UNSTAMPED_VERSION)
    if number not in _READ:
        is_older = isinstance(number, int) and number < FORMAT
        way_out = "train again" if is_older else "use that version or a later one"
        raise UserError(
            f"{path} was written by dat_jax {version} in format {number}, which dat_jax "
            f"{__version__} cannot read: {way_out}"
        )
    return Stamped(values, number, version)
