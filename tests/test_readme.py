# SPDX-License-Identifier: Apache-2.0
"""The README's commands are the ones that are checked."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TEST_COMMAND = "pip install -e '.[dev]' && pytest"


def test_the_readme_shows_the_test_command_on_a_line_of_its_own():
    assert TEST_COMMAND in (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()


def test_ci_runs_the_readmes_test_command():
    lines = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines[-1] == f'run bash -c "{TEST_COMMAND}"'
