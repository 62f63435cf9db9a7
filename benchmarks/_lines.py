# SPDX-License-Identifier: Apache-2.0
"""A file of JSON lines that grows: what it has already is not measured again."""

import json
from pathlib import Path
from typing import Any

from benchmarks._timing import check_output, write_lines
from dat_jax.errors import UserError

Line = dict[str, Any]


class Lines:
    """The lines of a suite, old and new, each known again by some of its values."""

    def __init__(self, path: Path, suite: str, keys: tuple[str, ...]) -> None:
        """Reads what is there.

        Raises:
            UserError: the folder does not exist, or the file is damaged or of another suite.
        """
        self._path, self._keys = check_output(path), keys
        self._lines: list[Line] = read_lines(path) if path.exists() else []
        if path.exists() and not path.read_text(encoding="utf-8").endswith("\n"):
            write_lines(path, self._lines)
        for line in self._lines:
            if line.get("suite") != suite:
                raise UserError(
                    f"{path} holds other lines than those of the suite {suite}: name another "
                    "--output"
                )

    def __len__(self) -> int:
        return len(self._lines)

    def find(self, **values: Any) -> Line | None:
        """The line with these values under the keys by which lines are known, if it is there."""
        wanted = [values[key] for key in self._keys]
        return next((x for x in self._lines if [x[key] for key in self._keys] == wanted), None)

    def add(self, line: Line) -> None:
        """Writes a line at once."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._lines.append(line)


def read_lines(path: Path) -> list[Line]:
    """Reads a file of JSON lines; a last one that was broken off is left out.

    Raises:
        UserError: the file is damaged otherwise.
    """
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError:
        raise UserError(f"{path} holds no JSON lines: name another --output") from None
