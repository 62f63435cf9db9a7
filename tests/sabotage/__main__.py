# SPDX-License-Identifier: Apache-2.0
"""Breaks one line at a time and checks whether a test notices.

    python -m tests.sabotage --output=FILE [--files=dat_jax/losses.py,dat_jax/exits] [--drawn=2]
        [--seed=0] [--workers=2] [--near]

Tries the edits of `tests/sabotage/table.py` and, for each module of dat_jax/, some random ones. For
each edit, a copy of the repository runs the tests that the edit names and the module's own, slow
ones included, then those that import the module, until one fails. Edits that pass these run all
quick tests, after all others. FILE gets a line of JSON for each edit and pass; the same command
resumes where it was stopped. At the end it prints the survivors: edits that no test noticed. The
whole run takes hours; `--near` leaves out the second pass, which takes minutes for each edit.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
_NEAR, _ALL = "near", "all"  # the tests of a pass
# Scripts first: they run most modules.
_EVERYWHERE = (["tests/scripts"], ["tests", "--ignore=tests/scripts"])
_SLOW_TOO = ("-m", "slow or not slow")
_LONGEST = {_NEAR: 900, _ALL: 3_600}  # seconds; catches an edit that makes a loop endless


def main(argv: Sequence[str]) -> int:
    """Runs the edits that the command line names; returns the exit status."""
    options = flags.FlagValues()
    define_path(options, "output", "A file of JSON lines to write or resume.")
    flags.DEFINE_list("files", ["dat_jax"], "Files or folders to break.", options)
    flags.DEFINE_integer("drawn", 2, "Edits to draw for each module.", 0, flag_values=options)
    flags.DEFINE_integer("seed", 0, "Seed of the random edits.", flag_values=options)
    flags.DEFINE_integer("workers", 2, "Edits to run at a time.", 1, flag_values=options)
    flags.DEFINE_bool("near", False, "Runs only the tests near each module.", options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Tries all edits that have no line yet, and prints the survivors."""
    edits = list(_edits(options.files, options.drawn, options.seed))
    lines = {_key(line): line for line in _read(options.output)}
    for tests in [_NEAR] if options.near else [_NEAR, _ALL]:
        left = [edit for edit in edits if _is_left(edit, lines.get(edit[:3]), tests)]
        with (
            open(options.output, "a", encoding="utf-8") as file,
            ThreadPoolExecutor(options.workers) as pool,
            tqdm(total=len(left), unit="edit", disable=not sys.stderr.isatty()) as bar,
        ):
            for line in pool.map(partial(_try, tests), left):
                lines[_key(line)] = line
                file.write(json.dumps(line) + "\n")
                file.flush()
                bar.update()
    survivors = [edit for edit in edits if not edit.note and not lines[edit[:3]]["noticed_by"]]
    explained = sum(bool(edit.note) for edit in edits)
    print(f"{len(edits)} edits, {explained} explained, {len(survivors)} survivors")
    for edit in survivors:
        print(f"{edit.file}: {edit.line.strip()}\n    -> {edit.broken.strip()}")


def _is_left(edit: Sabotage, line: dict[str, Any] | None, tests: str) -> bool:
    """Returns whether an edit must still run these tests, given its last line."""
    if edit.note or (line and (line["noticed_by"] or line["tests"] == _ALL)):
        return False
    return line is None or tests == _ALL


def _edits(files: Sequence[str], count: int, seed: int) -> Iterator[Sabotage]:
    """Yields the edits of the table and other random ones for these files.

    Raises:
        UserError: there is no such file.
    """
    listed = {edit[:3] for edit in TABLE}
    for name in files:
        if not (REPOSITORY / name).exists():
            raise UserError(f"--files: there is no {name}: name files or folders of the repository")
        yield from (edit for edit in TABLE if edit.file.startswith(name))
        path = REPOSITORY / name
        for module in [path] if path.is_file() else sorted(path.rglob("*.py")):
            edits = drawn(REPOSITORY, str(module.relative_to(REPOSITORY)), count, seed)
            yield from (edit for edit in edits if edit[:3] not in listed)


def _try(tests: str, edit: Sabotage) -> dict[str, Any]:
    """Runs tests with an edit; returns its line, which names the first test that noticed it."""
    line = edit._asdict() | {"tests": tests, "noticed_by": None}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        _copy_to(copy)
        broken = edit.broken_text((copy / edit.file).read_text(encoding="utf-8"))
        (copy / edit.file).write_text(broken, encoding="utf-8")
        for paths in _near(edit) if tests == _NEAR else _EVERYWHERE:
            noticed = _first_failure(copy, paths, _LONGEST[tests])
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
    (REPOSITORY / ".cache").mkdir(exist_ok=True)
    (copy / ".cache").symlink_to(REPOSITORY / ".cache")  # compiled programs


def _near(edit: Sabotage) -> Iterator[list[str]]:
    """Yields the tests to run: those that an edit names, its module's own, those that import it."""
    if edit.test:
        yield [*_SLOW_TOO, *edit.test.split()]
    parts = Path(edit.file).with_suffix("").parts
    own = Path("tests", *parts[1:-1], f"test_{parts[-1]}.py")
    if (REPOSITORY / own).exists():
        yield [*_SLOW_TOO, str(own)]
    importing = [str(path) for path in _importing(parts) if path != own]
    if importing:
        yield importing


def _importing(parts: tuple[str, ...]) -> Iterator[Path]:
    """Yields the tests that import a module, given the parts of its path."""
    *package, name = (part for part in parts if part != "__init__")
    module, package = re.escape(".".join([*package, name])), re.escape(".".join(package))
    imports = rf"^(from {module} import|import {module}$|from {package} import .*\b{name}\b)"
    for path in sorted((REPOSITORY / "tests").rglob("test_*.py")):
        if re.search(imports, path.read_text(encoding="utf-8"), re.MULTILINE):
            yield path.relative_to(REPOSITORY)


def _first_failure(copy: Path, tests: Sequence[str], longest: float) -> str | None:
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
            timeout=longest,
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
