# SPDX-License-Identifier: Apache-2.0
"""Tables and figures from files of results, and the pages whose marks ask for them."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.compiled import pieces
from benchmarks.decode import systems
from benchmarks.drawing import check_drawing
from benchmarks.report.figures import FIGURES
from benchmarks.report.views import VIEWS
from benchmarks.results import Line, read_lines
from dat_jax.errors import UserError
from dat_jax.evaluation.provenance import hash_engine
from dat_jax.evaluation.tables import format_comparison, format_table
from dat_jax.storage.files import write_text
from dat_jax.storage.paths import as_path

_ROOT = Path(__file__).resolve().parents[2]
_TABLE = re.compile(r"(<!-- table: ([^>\n]+) -->\n).*?\n?(<!-- end -->)", re.DOTALL)
_FIGURE = re.compile(r"<!-- figure: ([^>\n]+) -->\n!\[[^\]]*\]\(([^)]+)\)")


def warnings(sources: Sequence[str]) -> Iterator[str]:
    """Yields a warning for each file of these tables and figures with lines of another engine."""
    words = dict.fromkeys(word for source in sources for word in source.split())
    for name in (word for word in words if word.endswith(".jsonl")):
        engines = [line.get("engine_sha256") for line in _read(name)]
        others = sum(engine != hash_engine() for engine in engines)
        if others:
            yield (
                f"{name}: {others} of {len(engines)} lines are of another engine than "
                f"{hash_engine()} or do not name theirs: measure again, or say so on the page"
            )


def pages() -> list[Path]:
    """Returns the pages that may hold tables and figures."""
    return [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]


def renew(page: Path) -> list[str]:
    """Renews the tables and figures of a page; returns their sources."""
    before = page.read_text(encoding="utf-8")
    after = renewed(before)
    if after != before:
        write_text(page, after)
        print(f"{page.relative_to(_ROOT)}: tables renewed")
    drawn = figures(after)
    for source, name in drawn:
        draw(source, page.parent / name)
        print(f"{page.relative_to(_ROOT)}: {name} drawn")
    return [found[2] for found in _TABLE.finditer(after)] + [source for source, _ in drawn]


def renewed(text: str) -> str:
    """Returns the text of a page with the tables that its marks ask for.

    Raises:
        UserError: a mark asks for something that does not exist.
    """
    return _TABLE.sub(lambda found: f"{found[1]}{table(found[2])}\n{found[3]}", text)


def figures(text: str) -> list[tuple[str, str]]:
    """Returns the figures of a page: the source of each, and its file relative to the page."""
    return _FIGURE.findall(text)


def table(source: str) -> str:
    """Returns the table of a file of results.

    Raises:
        UserError: the file, view or line does not exist, or the file's lines have no table.
    """
    name, *arguments = source.split() or [""]
    lines = _read(name)
    match lines[0].get("benchmark"):
        case "decode":
            names = [line["table"] for line in lines]
            chosen = _chosen(names, arguments, source)
            return systems.format_lines([lines[n] for n in chosen])
        case "compiled":
            return pieces.format_table(lines)
        case "compare":
            return format_comparison(lines)
        case "reproduce":
            if len(arguments) != 2 or arguments[0] not in VIEWS:
                raise UserError(
                    f"table {source!r}: must be FILE VIEW SPLIT, as 'results/NAME.jsonl by_exit "
                    f"test', with a view of {', '.join(VIEWS)}"
                )
            return VIEWS[arguments[0]](lines, arguments[1])
        case None:
            numbers = [str(number) for number in range(1, len(lines) + 1)]
            return format_table([lines[n] for n in _chosen(numbers, arguments, source)])
        case other:
            raise UserError(f"table {source!r}: lines of benchmarks.{other} have no table")


def draw(source: str, path: Path) -> None:
    """Draws the figure of some files of results.

    Raises:
        UserError: the kind of figure or a file does not exist, or a file has other lines.
    """
    kind, *names = source.split() or [""]
    if kind not in FIGURES or not names:
        raise UserError(
            f"figure {source!r}: must be KIND FILE, as 'quality results/NAME.jsonl', with a kind "
            f"of {', '.join(FIGURES)}"
        )
    check_drawing()
    lines = [line for name in names for line in _read(name)]
    benchmark = "decode" if kind == "speed" else "reproduce"
    if any(line.get("benchmark") != benchmark for line in lines):
        raise UserError(f"figure {source!r}: {kind} needs files of benchmarks.{benchmark}")
    FIGURES[kind](lines, path)


def _chosen(names: Sequence[str], wanted: Sequence[str], source: str) -> list[int]:
    """Returns the places of lines whose names are wanted, in the order wanted; all if none is."""
    if not set(wanted) <= set(names):
        raise UserError(
            f"table {source!r}: parts of the file are {', '.join(dict.fromkeys(names))}: name "
            "some of them, or the file alone"
        )
    order = dict.fromkeys(wanted or names)
    return [n for one in order for n, name in enumerate(names) if name == one]


def _read(name: str) -> list[Line]:
    """Returns the lines of a file, named relative to the current folder or the repository."""
    path = as_path(name)
    path = path if path.exists() else _ROOT / name
    if not path.is_file():
        raise UserError(f"{name!r} is not a file of results: measure it, or name another")
    lines = read_lines(path)
    if not lines:
        raise UserError(f"{name} has no lines: measure it, or name another")
    return lines
