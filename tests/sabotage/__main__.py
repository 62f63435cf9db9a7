# SPDX-License-Identifier: Apache-2.0
"""Breaks one line at a time and checks whether a test notices.

    python -m tests.sabotage --output=FILE [--files=dat_jax/losses.py,dat_jax/exits] [--drawn=2]
        [--seed=0] [--workers=2]

Tries the edits of `tests/sabotage/table.py` and, for each module of dat_jax/, some random ones. For
each edit, a copy of the repository runs the tests that the edit names, then those of the module's
folder, then all quick tests, until one fails. FILE gets a line of JSON for each edit; the same
command resumes where it was stopped. At the end it prints the survivors: edits that no test
noticed. A survivor takes minutes, so the whole run takes hours.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from dat_jax.cli.command_line import define_path, run
from dat_jax.errors import UserError
from tests.sabotage.edits import Sabotage, drawn
from tests.sabotage.table import TABLE

REPOSITORY = Path(__file__).resolve().parent.parent.parent
_COPIED = ("dat_jax", "tests", "configs", "benchmarks", "docs", "results")
_LONGEST = 3_600  # seconds for all tests; this catches an edit that makes a loop endless


def main(argv: Sequence[str]) -> int:
    """Runs the edits that the command line names; returns the exit status."""
    options = flags.FlagValues()
    define_path(options, "output", "A file of JSON lines to write or resume.")
    flags.DEFINE_list("files", ["dat_jax"], "Files or folders to break.", options)
    flags.DEFINE_integer("drawn", 2, "Edits to draw for each module.", 0, flag_values=options)
    flags.DEFINE_integer("seed", 0, "Seed of the random edits.", flag_values=options)
    flags.DEFINE_integer("workers", 2, "Edits to run at a time.", 1, flag_values=options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Tries all edits that have no line yet, and prints the survivors."""
    edits = list(_edits(options.files, options.drawn, options.seed))
    lines = {_key(line): line for line in _read(options.output)}
    left = [edit for edit in edits if (edit.file, edit.line, edit.broken) not in lines]
    with (
        open(options.output, "a", encoding="utf-8") as file,
        ThreadPoolExecutor(options.workers) as pool,
        tqdm(total=len(left), unit="edit", disable=not sys.stderr.isatty()) as bar,
    ):
        for line in pool.map(_try, left):
            lines[_key(line)] = line
            file.write(json.dumps(line) + "\n")
            file.flush()
            bar.update()
    tried = [lines[edit.file, edit.line, edit.broken] for edit in edits]
    survivors = [line for line in tried if not line["noticed_by"] and not line["note"]]
    explained = sum(bool(line["note"]) for line in tried)
    print(f"{len(tried)} edits, {explained} explained, {len(survivors)} survivors")
    for line in survivors:
        print(f"{line['file']}: {line['line'].strip()}\n    -> {line['broken'].strip()}")


def _edits(files: Sequence[str], count: int, seed: int) -> Iterator[Sabotage]:
    """Yields the edits of the table and the random ones for these files.

    Raises:
        UserError: there is no such file.
    """
    for name in files:
        if not (REPOSITORY / name).exists():
            raise UserError(f"--files: there is no {name}: name files or folders of the repository")
        yield from (edit for edit in TABLE if edit.file.startswith(name))
        path = REPOSITORY / name
        for module in [path] if path.is_file() else sorted(path.rglob("*.py")):
            yield from drawn(REPOSITORY, str(module.relative_to(REPOSITORY)), count, seed)


def _try(edit: Sabotage) -> dict[str, Any]:
    """Runs the tests with an edit; returns its line, which names the first test that noticed it."""
    line = edit._asdict() | {"noticed_by": None}
    if edit.note:
        return line
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        _copy_to(copy)
        broken = edit.broken_text((copy / edit.file).read_text(encoding="utf-8"))
        (copy / edit.file).write_text(broken, encoding="utf-8")
        for tests in _stages(edit):
            noticed = _first_failure(copy, tests)
            if noticed:
                return line | {"noticed_by": noticed}
    return line


def _copy_to(copy: Path) -> None:
    """Copies the files that the tests need."""
    for name in _COPIED:
        shutil.copytree(
            REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for path in REPOSITORY.iterdir():
        if path.is_file():
            shutil.copy(path, copy / path.name)
    shutil.copytree(REPOSITORY / ".ci", copy / ".ci")


def _stages(edit: Sabotage) -> Iterator[list[str]]:
    """Yields the tests to run: those of the edit, those of the module's folder, all quick ones."""
    if edit.test:
        yield edit.test.split()
    parts = Path(edit.file).with_suffix("").parts[1:]
    folder, file = Path("tests", *parts[:-1]), Path("tests", *parts[:-1], f"test_{parts[-1]}.py")
    if (REPOSITORY / file).exists():
        yield [str(file)]
    if len(parts) > 1 and (REPOSITORY / folder).exists():
        yield [str(folder)]
    yield ["tests"]


def _first_failure(copy: Path, tests: Sequence[str]) -> str | None:
    """Runs tests until one fails; returns its name, or None if all pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    try:
        done = subprocess.run(
            [*command, "--ignore=tests/test_sabotage.py", *tests],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_LONGEST,
        )
    except subprocess.TimeoutExpired:
        return f"{' '.join(tests)} did not end"
    if done.returncode == 0:
        return None
    failed = [text for text in done.stdout.splitlines() if text.startswith(("FAILED", "ERROR"))]
    return failed[0][:200] if failed else f"{' '.join(tests)}: {done.stdout[-200:]}"


def _key(line: dict[str, Any]) -> tuple[str, str, str]:
    """Returns the fields that identify a line."""
    return line["file"], line["line"], line["broken"]


def _read(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a file; none if it does not exist."""
    if not path.exists():
        return []
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
