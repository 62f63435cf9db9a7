# SPDX-License-Identifier: Apache-2.0
"""README and docs: commands are those that are checked, tables those of the results, names exist."""

import ast
import importlib.util
import inspect
import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks._systems import format_lines
from benchmarks.table import read_table
from configs import base, decode
from dat_jax import TranslationModel
from dat_jax.config import DecodingConfig
from dat_jax.decoding.engines import Found, Hypothesis
from dat_jax.decoding.translator import Translation
from dat_jax.evaluation.tables import format_table

REPOSITORY = Path(__file__).resolve().parent.parent
TEST_COMMAND = "pip install -e '.[dev]' && pytest"
MOST_LINES = 150

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
    for path in [
        REPOSITORY / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
        *sorted((REPOSITORY / "docs").glob("*.md")),
    ]
}

SUFFIXES = "py|md|toml|jsonl|svg"
OF_A_RUN = {"exits.jsonl", "evaluation.jsonl", "metrics.jsonl"}
"""Files that a workdir holds, and the repository does not."""


class Table(NamedTuple):
    """A table of a page, and what its marker says that it is made of."""

    page: str
    source: str
    text: str


def tables() -> list[Table]:
    pattern = r"<!-- table: (.+?) -->\n(.*?)\n?<!-- end -->"
    return [
        Table(page, *found)
        for page, text in PAGES.items()
        for found in re.findall(pattern, text, re.DOTALL)
    ]


def printed(source: str) -> str:
    """What the command prints whose lines of results these are.

    Of `benchmarks.decode` one table is named; of `benchmarks.table` lines may be, from 1.
    """
    name, *wanted = source.split()
    lines = [json.loads(line) for line in (REPOSITORY / name).read_text("utf-8").splitlines()]
    if lines[0].get("benchmark") == "decode":
        return format_lines([line for line in lines if line["table"] in wanted])
    return format_table([lines[int(number) - 1] for number in wanted] if wanted else lines)


def named(pattern: str, pages: dict[str, str]) -> list[tuple[str, str]]:
    """All that the pages have of a pattern, each once: the page and what was found."""
    return [
        (page, found)
        for page, text in pages.items()
        for found in dict.fromkeys(re.findall(pattern, text, re.MULTILINE))
    ]


def test_the_readme_shows_the_test_command_on_a_line_of_its_own():
    assert TEST_COMMAND in README.splitlines()


def test_ci_runs_the_readmes_test_command():
    lines = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines[-1] == f'run bash -c "{TEST_COMMAND}"'


def test_the_readme_is_short():
    assert len(README.splitlines()) <= MOST_LINES


def test_the_readmes_table_of_results_is_short():
    (table,) = (table for table in tables() if table.page == "README.md")
    assert len(table.text.splitlines()) <= 2 + 8


def test_every_table_of_the_speeds_is_on_some_page():
    text = (REPOSITORY / "results" / "decode.jsonl").read_text(encoding="utf-8")
    kinds = {json.loads(line)["table"] for line in text.splitlines()}
    shown = {table.source for table in tables()}
    assert {f"results/decode.jsonl {kind}" for kind in kinds} <= shown


@pytest.mark.parametrize("table", tables(), ids=lambda table: f"{table.page}: {table.source}")
def test_a_table_is_what_its_command_prints(table: Table):
    assert table.text == printed(table.source)


def test_no_other_table_holds_measurements():
    for page, text in PAGES.items():
        checked = [table.text for table in tables() if table.page == page]
        checked.append(demo_output())
        for heads in re.findall(r"^\|.*(?:tokens/s|BLEU).*\|$", text, re.MULTILINE):
            assert any(heads in known for known in checked), f"{page}: {heads}"


def demo_output() -> str:
    """The fenced block that shows what the demo prints."""
    (block,) = re.findall(r"^<!-- demo output -->\n```\n(.*?)^```$", README, re.DOTALL | re.M)
    return block


def test_the_demo_prints_what_the_readme_shows():
    assert read_table(REPOSITORY / "results" / "demo.jsonl") in demo_output().replace("\n\n", "\n")


@pytest.mark.parametrize(("page", "link"), named(r"\]\(([^)#]+)", PAGES))
def test_links_lead_somewhere(page: str, link: str):
    assert link.startswith("https://") or ((REPOSITORY / page).parent / link).exists()


@pytest.mark.parametrize(
    ("page", "path"), named(rf"(?<![\w./-])([\w./-]+(?:\.(?:{SUFFIXES})\b|(?<=\w)/(?= |`)))", PAGES)
)
def test_paths_exist(page: str, path: str):
    """Of the repository, or below dat_jax; those of runs are other people's."""
    known = path in OF_A_RUN or path.startswith("runs/")
    assert known or any((root / path).exists() for root in (REPOSITORY, REPOSITORY / "dat_jax"))


@pytest.mark.parametrize(("page", "module"), named(r"python -m ([\w.]+)", PAGES))
def test_modules_that_are_run_exist(page: str, module: str):
    assert importlib.util.find_spec(module) is not None


def has_key(config: Any, name: str) -> bool:
    """Whether a config has this key, sections with dots between them."""
    for part in name.split("."):
        if part not in config:
            return False
        config = config[part]
    return True


@pytest.mark.parametrize(("page", "key"), named(r"--config\.([\w.]*\w)", PAGES))
def test_keys_of_commands_are_real(page: str, key: str):
    """Those with a section are of `train.py`, the others of `decode.py`."""
    assert has_key((base if "." in key else decode).get_config(), key)


@pytest.mark.parametrize(
    ("page", "key"), named(rf"`((?:{'|'.join(base.get_config())})\.(?!py\b)\w+)", PAGES)
)
def test_keys_in_the_text_are_real(page: str, key: str):
    assert has_key(base.get_config(), key)


@pytest.mark.parametrize(("page", "extra"), named(r"'\.\[(\w+)\]'", PAGES))
def test_extras_exist(page: str, extra: str):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert extra in project["project"]["optional-dependencies"]


def test_the_python_example_uses_what_there_is():
    (example,) = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    tree = ast.parse(example)
    settings = {field.name for field in fields(DecodingConfig)}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        match call.func:
            case ast.Attribute(value=ast.Name(id="model"), attr=name):
                known = settings | set(inspect.signature(getattr(TranslationModel, name)).parameters)
                assert {keyword.arg for keyword in call.keywords} <= known
    results = {"translation": (Translation,), "found": (Found, Hypothesis)}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in results:
                assert attribute in {field.name for kind in results[name] for field in fields(kind)}
