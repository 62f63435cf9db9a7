# SPDX-License-Identifier: Apache-2.0
"""The commit that results name."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.calls import REPOSITORY, environment

NAMED = "from dat_jax.evaluation.provenance import describe_commit; print(describe_commit())"


def git(folder: Path, *arguments: str) -> str:
    """Runs git and returns what it prints."""
    author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    command = ["git", "-C", folder, *author, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def named(folder: Path) -> str:
    """The commit that the code in this folder names, wherever it is called."""
    return subprocess.run(
        [sys.executable, "-c", NAMED],
        cwd=folder.parent,
        env=environment() | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


@pytest.mark.slow
def test_results_name_the_commit_of_the_code(tmp_path: Path):
    folder = tmp_path / "code"
    shutil.copytree(REPOSITORY / "dat_jax", folder / "dat_jax")
    assert named(folder) == "unknown"
    git(folder, "init", "--quiet")
    (folder / ".gitignore").write_text("__pycache__")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=Code")
    commit = git(folder, "rev-parse", "--short=12", "HEAD")
    assert named(folder) == commit
    (folder / "dat_jax" / "errors.py").write_text("class UserError(Exception): pass")
    assert named(folder) == f"{commit}-dirty"
