# SPDX-License-Identifier: Apache-2.0
"""Axes: the table lists exactly the names used in annotations and comments of the package."""

import ast
import re
from pathlib import Path

import pytest

from dat_jax import types

PACKAGE = Path(types.__file__).parent
KINDS = {"Bool", "Float", "Int", "Integer"}


def names(axes: str) -> set[str]:
    """The axis names in a shape, without sizes and marks such as `*` and `#`."""
    return set(re.findall(r"[A-Za-z_]+", axes))


def annotated(source: str) -> set[str]:
    """The axes in all annotations such as `Float[Array, "B T"]`."""
    axes: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Subscript(
                value=ast.Name(id=kind), slice=ast.Tuple(elts=[_, ast.Constant(value=str(shape))])
            ) if kind in KINDS:
                axes |= names(shape)
    return axes


def commented(source: str) -> set[str]:
    """The axes in all comments that start with a shape, such as `# [B, T] of the next token`."""
    return names(" ".join(re.findall(r"# \[([^\]]*)\]", source)))


def table() -> dict[str, str]:
    """The axes that `dat_jax.types` explains, with their meanings."""
    rows = re.findall(r"^\| (\w+) \| (.+) \|$", types.__doc__ or "", re.MULTILINE)
    rows = [row for row in rows if row[0] != "axis"]
    assert len({name for name, _ in rows}) == len(rows)
    return dict(rows)


def used() -> dict[str, set[str]]:
    """The axes used in each module of the package."""
    sources = {
        path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(PACKAGE.rglob("*.py"))
    }
    return {name: annotated(source) | commented(source) for name, source in sources.items()}


def test_every_axis_is_explained():
    unexplained = {module: axes - table().keys() for module, axes in used().items()}
    assert {module: axes for module, axes in unexplained.items() if axes} == {}


def test_every_explained_axis_is_used():
    assert table().keys() - set().union(*used().values()) == set()


def test_no_two_axes_mean_the_same():
    meanings = list(table().values())
    assert len(set(meanings)) == len(meanings)


@pytest.mark.parametrize(
    ("line", "axes"),
    [
        ('x: Float[Array, "*B #T D"]', {"B", "T", "D"}),
        ('def f(x: Int[np.ndarray, " _"]) -> Bool[Array, ""]: ...', {"_"}),
        ('x: Float[Array, "B 1 S"] | None', {"B", "S"}),
        ("x: jax.Array  # [(N + 1) R T, D] at an address", {"N", "R", "T", "D"}),
        ("x: jax.Array  # [*B, top] best first", {"B", "top"}),
        ("x = [B, T]", set()),
        ('x: dict[str, "B T"]', set()),
    ],
)
def test_axes_are_read_from_annotations_and_comments(line: str, axes: set[str]):
    assert annotated(line) | commented(line) == axes
