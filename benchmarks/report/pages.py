# SPDX-License-Identifier: Apache-2.0
"""Pages: the tables and figures that their marks ask for, made from files of results."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.compiled import tables as compiled
from benchmarks.decode import systems
from benchmarks.report.figures import FIGURES, check_drawing
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
    """Yields a warning for each file of these tables and figures that is not of this engine alone.

    The engine is what decodes; a line names it by a checksum of its code.
    """
    words = dict.fromkeys(word for source in sources for word in source.split())
    for name in (word for word in words if word.endswith(".jsonl")):
        engines = [line.get("engine_sha256") for line in _read(name)]
        others = sum(engine != hash_engine() for engine in engines)
        if others:
            yield (
                f"{name}: {others} of {len(engines)} lines are of another engine than "
                f"{hash_engine()}, or do not say of which: measure again, or say so on the page"
            )


def pages() -> list[Path]:
    """The pages that hold tables and figures."""
    return [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]


def renew(page: Path) -> list[str]:
    """Makes the tables of a page anew, draws its figures, and returns what both are made of."""
    before = page.read_text(encoding="utf-8")
    after = renewed(before)
    if after != before:
        write_text(page, after)
        print(f"{page.relative_to(_ROOT)}: tables made anew")
    drawn = figures(after)
    for source, name in drawn:
        draw(source, page.parent / name)
        print(f"{page.relative_to(_ROOT)}: {name} drawn")
    return [found[2] for found in _TABLE.finditer(after)] + [source for source, _ in drawn]


def renewed(text: str) -> str:
    """The text of a page with the tables that its marks ask for.

    Raises:
        UserError: a mark asks for what there is not.
    """
    return _TABLE.sub(lambda found: f"{found[1]}{table(found[2])}\n{found[3]}", text)


def figures(text: str) -> list[tuple[str, str]]:
    """The figures of a page: what each is made of, and its file as seen from the page."""
    return _FIGURE.findall(text)


def table(source: str) -> str:
    """The table of a file of results.

    Raises:
        UserError: there is no such file, view or line.
    """
    name, *arguments = source.split() or [""]
    lines = _read(name)
    match lines[0].get("benchmark"):
        case "decode":
            tables = [line["table"] for line in lines]
            wanted = _some(arguments or tables, tables, source)
            return systems.format_lines([line for line in lines if line["table"] in wanted])
        case "compiled":
            return compiled.format_table(lines)
        case "compare":
            return format_comparison(lines)
        case "reproduce":
            view, argument = _two(arguments, source)
            return VIEWS[view](lines, argument)
    by_number = {str(number): line for number, line in enumerate(lines, 1)}
    numbers = _some(arguments or list(by_number), list(by_number), source)
    return format_table([by_number[number] for number in numbers])


def draw(source: str, path: Path) -> None:
    """Draws the figure of some files of results.

    Raises:
        UserError: there is no such figure or file, or it holds lines of something else.
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
        raise UserError(
            f"figure {source!r}: name files of benchmarks.{benchmark}, of which alone {kind} is "
            "drawn"
        )
    FIGURES[kind](lines, path)


def _some(wanted: list[str], there: list[str], source: str) -> list[str]:
    """The parts of a file that are wanted, all of which must be there."""
    if not set(wanted) <= set(there):
        raise UserError(
            f"table {source!r}: parts of the file are {', '.join(dict.fromkeys(there))}: name "
            "some of them, or the file alone"
        )
    return wanted


def _two(arguments: list[str], source: str) -> tuple[str, str]:
    if len(arguments) != 2 or arguments[0] not in VIEWS:
        raise UserError(
            f"table {source!r}: must be FILE VIEW SPLIT, as 'results/NAME.jsonl by_exit test', "
            f"with a view of {', '.join(VIEWS)}"
        )
    return arguments[0], arguments[1]


def _read(name: str) -> list[Line]:
    """The lines of a file, named from where we are or from the repository."""
    path = as_path(name)
    path = path if path.exists() else _ROOT / name
    if not path.is_file():
        raise UserError(f"{name!r} is no file of results: measure it, or name another")
    lines = read_lines(path)
    if not lines:
        raise UserError(f"{name} has no lines: measure it, or name another")
    return lines
