# SPDX-License-Identifier: Apache-2.0
"""One-line edits that break a module, chosen by hand or drawn by a seed."""

import ast
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Sabotage(NamedTuple):
    """An edit of one line that some test must notice."""

    file: str  # relative to the repository
    line: str  # part of a line; occurs once in the file
    broken: str  # replaces it
    test: str = ""  # tests known to notice it, if they are not the module's own
    note: str = ""  # why no test can notice it, if it does not change behaviour

    def broken_text(self, text: str) -> str:
        """Returns the text of the file with the edit.

        Raises:
            ValueError: the line does not occur exactly once.
        """
        if text.count(self.line) != 1:
            raise ValueError(f"{self.file} has {text.count(self.line)} times: {self.line}")
        return text.replace(self.line, self.broken)


def drawn(repository: Path, file: str, count: int, seed: int) -> list[Sabotage]:
    """Draws random edits of a module from all replacements below.

    Args:
        repository: root of the repository.
        file: path of the module in it.
        count: number of edits, each of another line; fewer if the module has too few. Edits that
            swap the arguments of a symmetric function do not count.
        seed: seed of the draws, combined with the file's name.
    """
    text = (repository / file).read_text(encoding="utf-8")
    lines = text.splitlines()
    edits = [
        Sabotage(file, lines[row], broken)
        for row, broken in _all_edits(ast.parse(text), lines)
        if text.count(lines[row]) == 1
    ]
    random.Random(f"{seed} {file}").shuffle(edits)
    by_line = {edit.line: edit for edit in edits}.values()
    own = _normal(text)
    changing = (edit for edit in by_line if _normal(edit.broken_text(text)) != own)
    return list(itertools.islice(changing, count))


def _all_edits(tree: ast.Module, lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yields every edit: the index of a line, from 0, and the edited line."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr | ast.keyword) or node.lineno != node.end_lineno:
            continue
        row, same = node.lineno - 1, ast.unparse(node)
        for new in _replacements(node):
            if new == same:
                continue
            line = lines[row].encode()
            end = node.end_col_offset or 0
            broken = line[: node.col_offset] + new.encode() + line[end:]
            yield row, broken.decode()


def _replacements(node: ast.AST) -> Iterator[str]:
    """Yields the expressions that replace this one."""
    match node:
        case ast.BinOp(left, ast.Add(), right) if not _is_text(left) and not _is_text(right):
            yield f"({ast.unparse(left)} - {ast.unparse(right)})"  # sign
            yield ast.unparse(left)  # dropped term
        case ast.BinOp(left, ast.Sub(), right):
            yield f"({ast.unparse(left)} + {ast.unparse(right)})"
            yield ast.unparse(left)
        case ast.BinOp(left, ast.BitAnd(), right):
            yield ast.unparse(left)  # dropped mask
            yield ast.unparse(right)
        case ast.BinOp(left, ast.Mult() | ast.Div(), right):
            yield ast.unparse(left)  # dropped factor
        case ast.UnaryOp(ast.Invert() | ast.Not(), operand):
            yield ast.unparse(operand)
        case ast.Compare(left, [operator], [right]) if type(operator) in _OTHER:
            yield f"{ast.unparse(left)} {_OTHER[type(operator)]} {ast.unparse(right)}"
        case ast.BoolOp(_, [first, *_]):
            yield ast.unparse(first)  # dropped condition
        case ast.keyword("axis", ast.Constant(int(axis))):
            yield f"axis={axis + 1 if axis < 0 else 0 if axis else 1}"
        case ast.Constant(int(value)) if not isinstance(value, bool):
            yield str(value + 1)  # off by one
        case ast.Call(function, [first, second, *rest], keywords) if not keywords:
            arguments = ", ".join(map(ast.unparse, (second, first, *rest)))
            yield f"{ast.unparse(function)}({arguments})"  # swapped arguments


def _normal(text: str) -> str:
    """Returns a form of a module that does not depend on the order of symmetric arguments."""
    return ast.dump(_Sorted().visit(ast.parse(text)))


class _Sorted(ast.NodeTransformer):
    """Sorts the arguments of symmetric functions."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if ast.unparse(node.func).rpartition(".")[2] in _SYMMETRIC:
            node.args.sort(key=ast.unparse)
        return node


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr | ast.Constant) and not isinstance(
        getattr(node, "value", None), int | float
    )


_SYMMETRIC = {"add", "max", "maximum", "min", "minimum", "multiply", "suppress"}
_OTHER: dict[type, str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
