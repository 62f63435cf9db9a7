# SPDX-License-Identifier: Apache-2.0
"""The glossary: sorted words, and the axis letters and `summary.json` fields of the code."""

import ast
import re
from pathlib import Path

import pytest

from dat_jax.evaluation.summary import Origin, ScoreSummary, Summary

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8")


KINDS = pytest.mark.parametrize("kind", [Origin, Summary, ScoreSummary])


def documented_fields(of: type) -> dict[str, str]:
    """A class's own fields, each with its docstring on one line."""
    source = (REPOSITORY / "dat_jax" / "evaluation" / "summary.py").read_text(encoding="utf-8")
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    (kind,) = (node for node in classes if node.name == of.__name__)
    fields = {}
    for node, below in zip(kind.body, kind.body[1:], strict=False):
        match node, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                fields[name] = " ".join(text.split())
    return fields


def letters(page: str) -> list[str]:
    """The letters of a table of axes."""
    return re.findall(r"^\| ([A-Z]) \| .+ \|$", page, re.MULTILINE)


@KINDS
def test_every_field_of_a_summary_is_explained(kind: type):
    inherited = {} if kind is Origin else documented_fields(Origin)
    assert (inherited | documented_fields(kind)).keys() == kind.__annotations__.keys()


@KINDS
def test_fields_match_the_code(kind: type):
    """On failure, put the left side between the marks of the page."""
    rows = [f"| `{name}` | {text} |" for name, text in documented_fields(kind).items()]
    expected = "\n".join(["| field | what it is |", "|---|---|", *rows])
    marks = rf"<!-- {kind.__name__} -->\n(.*?)\n<!-- end -->"
    (shown,) = re.findall(marks, PAGE, re.DOTALL)
    assert expected == shown


def test_letters_match_the_annotations():
    types = (REPOSITORY / "dat_jax" / "types.py").read_text(encoding="utf-8")
    assert letters(PAGE) == letters(types) != []


def test_words_are_sorted_and_explained():
    entries = re.findall(r"^- \*\*(.+?)\*\*.*: (.+)$", PAGE, re.MULTILINE)
    words = [word for word, _ in entries]
    assert len(words) == PAGE.count("\n- **") > 50
    assert words == sorted(words, key=str.lower)
