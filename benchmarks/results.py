# SPDX-License-Identifier: Apache-2.0
"""A file of JSON lines that grows: what it has already is not measured again."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dat_jax.errors import UserError
from dat_jax.storage.files import write_text

Line = dict[str, Any]


def check_output(path: Path) -> Path:
    """The file of JSON lines that a benchmark is to write, before it measures anything.

    Raises:
        UserError: its folder does not exist.
    """
    if not path.parent.is_dir():
        raise UserError(
            f"--output={path}: {path.parent} is no folder: make it, or name a file in another one"
        )
    return path


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Writes results, one a line, all or none."""
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


class Lines:
    """The lines of a suite, old and new, each known again by some of its values."""

    def __init__(self, path: Path, suite: str, keys: tuple[str, ...]) -> None:
        """Reads what is there.

        Raises:
            UserError: the folder does not exist, or the file is damaged or of another suite.
        """
        self._path, self._keys = check_output(path), keys
        self._lines: list[Line] = read_lines(path) if path.exists() else []
        for line in self._lines:
            if line.get("suite") != suite:
                raise UserError(
                    f"--output={path} holds lines of {line.get('suite')!r}, not of the suite "
                    f"{suite!r}: name another --output"
                )
        if path.exists() and not path.read_text(encoding="utf-8").endswith("\n"):
            write_lines(path, self._lines)

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
    damaged = UserError(f"{path} holds no JSON lines: restore it, or name another file")
    try:
        *whole, last = path.read_text(encoding="utf-8").split("\n")
        lines = [json.loads(line) for line in whole]
    except ValueError:
        raise damaged from None
    if last[:1] not in ("", "{"):
        raise damaged
    with contextlib.suppress(ValueError):  # it was broken off
        lines += [json.loads(last)] if last else []
    if not all(isinstance(line, dict) for line in lines):
        raise damaged
    return lines


def lines_of(lines: Sequence[Line], key: str, value: str) -> list[Line]:
    """The lines of `benchmarks.reproduce` that have a value, as text, under a key.

    Raises:
        UserError: there are none, or several of the same training, seed, split and policy.
    """
    chosen = [line for line in lines if str(line[key]) == value]
    if not chosen:
        there = ", ".join(dict.fromkeys(str(line[key]) for line in lines))
        raise UserError(f"no line has the {key} {value!r}: must be one of {there}")
    names = Counter((x["point"], x["seed"], x["split"], x["policy"]) for x in chosen)
    (name, count), *_ = names.most_common(1)
    if count > 1:
        point, seed, split, policy = name
        raise UserError(
            f"{count} lines are of {point}, seed {seed}, {split}, {policy}: leave out those of "
            "other configs, beams or batch sizes"
        )
    return chosen
