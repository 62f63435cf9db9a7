# SPDX-License-Identifier: Apache-2.0
"""README and docs: commands and names exist, and tables match the results."""

import ast
import importlib.util
import inspect
import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import dat_jax
from benchmarks.report import pages as report
from configs import base, decode
from dat_jax import TranslationModel
from dat_jax.config import DecodingConfig
from dat_jax.decoding.search import SearchResult
from dat_jax.decoding.translator import Translation

REPOSITORY = Path(__file__).resolve().parent.parent
TEST_COMMAND = "pip install -e '.[dev]' && pytest"
MOST_LINES = 130

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
    for path in [
        REPOSITORY / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
        *sorted((REPOSITORY / "docs").rglob("*.md")),
    ]
}

NOWHERE = {
    "exits.jsonl",
    "scores.jsonl",
    "evaluation.jsonl",
    "metrics.jsonl",
    "vocabulary/",
    "checkpoints/",
}
NOWHERE |= {"tensorboard/", "decode/", "tuned/", "utils.py", "my_rules.py", "FILE.py"}
"""Names on the pages that are not in the repository: files of a run or a user, and a bad name."""


def named(pattern: str, page: str) -> list[str]:
    """All matches of a pattern on a page, without duplicates."""
    return list(dict.fromkeys(re.findall(pattern, PAGES[page], re.MULTILINE)))


every_page = pytest.mark.parametrize("page", PAGES)


def test_the_readme_shows_the_test_command():
    assert TEST_COMMAND in README.splitlines()


def test_ci_runs_the_test_command_of_the_readme():
    lines = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines[-2:] == [f'run bash -c "{TEST_COMMAND}"', "run pytest -m slow"]


def test_the_readme_is_short():
    assert len(README.splitlines()) <= MOST_LINES


def test_every_speed_table_is_on_a_page():
    text = (REPOSITORY / "results" / "decode.jsonl").read_text(encoding="utf-8")
    kinds = {json.loads(line)["table"] for line in text.splitlines()}
    shown = {source for page in PAGES for source in named(r"<!-- table: (.+) -->", page)}
    assert {f"results/decode.jsonl {kind}" for kind in kinds} <= shown


@every_page
def test_tables_match_the_report(page: str):
    assert report.renewed(PAGES[page]) == PAGES[page]


@every_page
def test_figures_can_be_drawn_from_the_results(page: str, tmp_path: Path):
    for source, name in report.figures(PAGES[page]):
        report.draw(source, tmp_path / "figure.svg")
        assert ((REPOSITORY / page).parent / name).stat().st_size > 1_000
        assert (tmp_path / "figure.svg").stat().st_size > 1_000


@every_page
def test_no_other_table_holds_measurements(page: str):
    text = re.sub(r"<!-- table: .*?<!-- end -->", "", PAGES[page], flags=re.DOTALL)
    assert re.findall(r"^\|.*(?:tokens/s|BLEU).*\|$", text, re.MULTILINE) == []


@every_page
def test_links_have_targets(page: str):
    links = named(r"\]\(([^)#]+)", page)
    folder = (REPOSITORY / page).parent
    assert [x for x in links if not x.startswith("https://") and not (folder / x).exists()] == []


@every_page
def test_links_to_headings_have_targets(page: str):
    folder = (REPOSITORY / page).parent
    links = [link.split("#") for link in named(r"\]\(([\w./]*#[^)]+)", page)]
    targets = [(folder / place if place else REPOSITORY / page, anchor) for place, anchor in links]
    assert [(place, anchor) for place, anchor in targets if anchor not in anchors(place)] == []


def anchors(page: Path) -> set[str]:
    """GitHub's anchors for the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_paths_exist(page: str):
    """Relative to the page, the repository or the package."""
    paths = named(r"(?<![\w./-])[\w./-]+(?:\.(?:py|md|toml|jsonl|svg)\b|(?<=\w)/(?=[\s`]))", page)
    paths = [path for path in paths if path not in NOWHERE and not path.startswith("runs/")]
    roots = [(REPOSITORY / page).parent, REPOSITORY, REPOSITORY / "dat_jax"]
    assert paths
    assert [path for path in paths if not any((root / path).exists() for root in roots)] == []


@every_page
def test_modules_that_are_run_exist(page: str):
    modules = named(r"python -m ([\w.]*\w)", page)
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


def has_key(config: Any, name: str) -> bool:
    """True if a config has this dotted key."""
    for part in name.split("."):
        if part not in config:
            return False
        config = config[part]
    return True


@every_page
def test_keys_of_commands_are_real(page: str):
    """Keys with a section are those of `train.py`, the others those of `decode.py`."""
    keys = named(r"--config\.([\w.]*\w)", page)
    assert [k for k in keys if not has_key((base if "." in k else decode).get_config(), k)] == []


@every_page
def test_keys_in_the_text_are_real(page: str):
    config = base.get_config()
    keys = named(rf"`((?:{'|'.join(config)})\.\w+)", page)
    assert [key for key in keys if not has_key(config, key)] == []


@every_page
def test_extras_exist(page: str):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(named(r"'\.\[(\w+)\]'", page)) <= project["optional-dependencies"].keys()


def test_the_python_example_uses_existing_names():
    (example,) = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    nodes = list(ast.walk(ast.parse(example)))
    attributes = {"translation": names_of(Translation), "result": names_of(SearchResult)}
    attributes |= {"model": set(dir(TranslationModel)), "dat_jax": set(dat_jax.__all__)}
    uses = 0
    for node in nodes:
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                assert attribute in attributes[name]
                uses += 1
            case ast.Call(func=ast.Attribute(value=ast.Name(id="model"), attr=method)):
                parameters = inspect.signature(getattr(TranslationModel, method)).parameters
                known = names_of(DecodingConfig) | parameters.keys()
                assert {keyword.arg for keyword in node.keywords} <= known
                uses += 1
    assert uses > 5


def names_of(kind: type) -> set[str]:
    """The fields of a dataclass."""
    return {field.name for field in fields(kind)}
