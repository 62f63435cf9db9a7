# SPDX-License-Identifier: Apache-2.0
"""The README's commands are the ones that are checked, its tables those of the results."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.systems import format_lines
from benchmarks.table import read_table

REPOSITORY = Path(__file__).resolve().parent.parent
TEST_COMMAND = "pip install -e '.[dev]' && pytest"


def test_the_readme_shows_the_test_command_on_a_line_of_its_own():
    assert TEST_COMMAND in (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()


def test_ci_runs_the_readmes_test_command():
    lines = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines[-1] == f'run bash -c "{TEST_COMMAND}"'


def readme() -> str:
    return (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_readmes_results_are_those_of_the_files():
    tables = re.findall(r"<!-- table: (\S+) -->\n(.*?)\n<!-- end -->", readme(), re.DOTALL)
    assert tables
    for path, table in tables:
        assert table == read_table(REPOSITORY / path)


def test_the_demo_prints_what_the_readme_shows():
    assert read_table(REPOSITORY / "results" / "demo.jsonl") in readme()


def test_the_readmes_speeds_are_those_of_the_file():
    text = (REPOSITORY / "results" / "decode.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    tables = format_lines(lines).split("\n\n")
    assert len(tables) == 3
    assert all(table in readme() for table in tables)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", readme()))
def test_the_readmes_links_lead_somewhere(link: str):
    assert link.startswith("https://") or (REPOSITORY / link).exists()
