# SPDX-License-Identifier: Apache-2.0
"""Files of JSON lines: a benchmark reads one, skips what it already holds and adds the rest."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dat_jax.errors import UserError
from dat_jax.storage.files import write_text

Line = dict[str, Any]


class Lines:
    """The lines of a suite in a file, each identified by its values of some keys."""

    def __init__(self, path: Path, suite: str, keys: tuple[str, ...]) -> None:
        """Reads the file if it exists, and ends an interrupted last line.

        Raises:
            UserError: the folder is missing, or the file is damaged or of another suite.
        """
        self._path, self._keys = check_output(path), keys
        self._lines = read_lines(path) if path.exists() else []
        for line in self._lines:
            if line.get("suite") != suite:
                raise UserError(
                    f"--output={path} holds lines of {line.get('suite')!r}, not of the suite "
                    f"{suite!r}: name another --output"
                )
        if path.exists() and not path.read_text(encoding="utf-8").endswith("\n"):
            write_text(path, "".join(json.dumps(line) + "\n" for line in self._lines))

    def __len__(self) -> int:
        return len(self._lines)

    def find(self, **values: Any) -> Line | None:
        """Returns the line with these values of the identifying keys, if there is one."""
        wanted = [values[key] for key in self._keys]
        return next((x for x in self._lines if [x[key] for key in self._keys] == wanted), None)

    def add(self, line: Line) -> None:
        """Appends a line to the file."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._lines.append(line)


def check_output(path: Path) -> Path:
    """Returns the path of an output file after checking that its folder exists.

    Raises:
        UserError: it does not.
    """
    if not path.parent.is_dir():
        raise UserError(
            f"--output={path}: {path.parent} is not a folder: create it, or choose another file"
        )
    return path


def write_lines(path: Path, lines: Iterable[Line]) -> list[Line]:
    """Writes each line as soon as it is known; returns all."""
    known = list[Line]()
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            known.append(line)
            print(json.dumps(line), file=file, flush=True)
    return known


def read_lines(path: Path) -> list[Line]:
    """Reads a file of JSON lines; drops a last line whose writing was interrupted.

    Raises:
        UserError: the file is damaged in another way.
    """
    damaged = UserError(f"{path} is not a file of JSON lines: restore it, or name another file")
    try:
        *texts, last = path.read_text(encoding="utf-8").split("\n")
        lines = [json.loads(text) for text in texts]
    except ValueError:
        raise damaged from None
    with contextlib.suppress(ValueError):  # the writing of the last line was interrupted
        lines += [json.loads(last)] if last else []
    if last[:1] not in ("", "{") or not all(isinstance(line, dict) for line in lines):
        raise damaged
    return lines


def kind_of(line: Line) -> str:
    """Returns the kind of a line's exit rule, as its policy names it."""
    return line["policy"].partition(":")[0]


def rule_of(line: Line) -> str:
    """Returns the kind of a line's exit rule in words, with its settings if it has some."""
    return _with_settings(kind_of(line).replace("_", " "), line)


def describe(line: Line) -> str:
    """Returns the policy of a line, with its settings if it has some."""
    return _with_settings(line["policy"], line)


def _with_settings(name: str, line: Line) -> str:
    settings = {"shortlist": line["shortlist"], "gap": line["trailing_gap"]}
    return ", ".join([name, *(f"{key} {value:g}" for key, value in settings.items() if value)])


def select(lines: Sequence[Line], key: str, value: str) -> list[Line]:
    """Returns the lines of `benchmarks.reproduce` with this value of a key, compared as text.

    Raises:
        UserError: there are none, or two have the same training, seed, split and policy.
    """
    chosen = [line for line in lines if str(line[key]) == value]
    if not chosen:
        known = ", ".join(dict.fromkeys(str(line[key]) for line in lines))
        raise UserError(f"no line has the {key} {value!r}: must be one of {known}")
    names = Counter((x["point"], x["seed"], x["split"], describe(x)) for x in chosen)
    [((point, seed, split, policy), count)] = names.most_common(1)
    if count > 1:
        raise UserError(
            f"{count} lines are of {point}, seed {seed}, {split}, {policy}: remove those with "
            "another config, beam size or batch size"
        )
    return chosen
