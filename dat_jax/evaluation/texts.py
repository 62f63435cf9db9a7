# SPDX-License-Identifier: Apache-2.0
"""The text to translate or to score: a split of the data, a file, or standard input."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dat_jax.config.schema import require
from dat_jax.decoding.lines import Extent, Lines
from dat_jax.errors import UserError
from dat_jax.evaluation.results import EXITS
from dat_jax.evaluation.scores import check_lengths
from dat_jax.runs.workdir import Run
from dat_jax.storage.paths import as_path, destination


class Text(NamedTuple):
    """An opened text."""

    lines: Iterable[str]
    total: int | None  # number of lines, if known
    sha256: str | None  # None: the text can be read only once
    references: list[str] | None
    arrives_within: Callable[[float], bool] = lambda _: True
    translations: Iterable[str] | None = None  # to score
    translations_sha256: str | None = None  # None: they can be read only once

    @property
    def checksums(self) -> dict[str, str | None]:
        """SHA-256 of source, references and translations, to detect a changed text."""
        checksums = {"text_sha256": self.sha256}
        if self.references is not None:
            checksums["references_sha256"] = Extent.of(self.references).sha256
        if self.translations is not None:
            checksums["translations_sha256"] = self.translations_sha256
        return checksums


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The text to translate, its references, and what becomes of the translations."""

    split: Literal["valid", "test"]
    input: str
    reference: str
    output: str
    resume: bool
    n_best: int = 0
    format: Literal["text", "jsonl"] = "text"
    score: str = ""

    def __post_init__(self) -> None:
        require(
            bool(self.input) or not self.reference,
            "reference is set but input is not: set input too, or drop reference, since a split "
            "has its own references",
        )
        require(
            not self.reference or not _is_one_file(self.input, self.reference),
            f"reference is {self.reference}, the same file as input: give the file of references",
        )
        require(
            self.format == "text" or self.arrives,
            f"format is {self.format}, the form of what is printed for standard input or a pipe: "
            f"leave it out, as {EXITS} has pieces, exits and scores",
        )
        for key in ("reference", "n_best") if self.score else ():
            require(
                not getattr(self, key),
                f"{key} and score are set, and score translates nothing: leave one of them out",
            )
        require(
            not self.score or not _is_one_file(self.input, self.score),
            f"score is {self.score}, the same file as input: give the file of translations",
        )

    def open(self, workdir: Run, stack: contextlib.ExitStack) -> Text:
        """Opens the text until `stack` ends, and reads the references, if any.

        Raises:
            UserError: the text cannot be read, `resume` is set and the text can be read only once,
                or the numbers of lines and of references, or translations to score, differ.
        """
        text = self._open_input(workdir, stack)
        return self._with_translations(text, stack) if self.score else text

    def _with_translations(self, text: Text, stack: contextlib.ExitStack) -> Text:
        """Opens the translations to score, until `stack` ends."""
        lines = stack.enter_context(Lines(self.score))
        total, sha256 = self._extent(lines)
        if None not in (total, text.total) and total != text.total:
            raise UserError(
                f"score is {self.score} with {total} lines for {text.total} sentences: give one "
                "translation for each"
            )

        def both_arrive_within(seconds: float) -> bool:
            deadline = time.monotonic() + seconds
            return text.arrives_within(seconds) and lines.arrives_within(
                max(0.0, deadline - time.monotonic())
            )

        return text._replace(
            total=text.total if total is None else total,
            references=None,
            arrives_within=both_arrive_within,
            translations=lines,
            translations_sha256=sha256,
        )

    def _extent(self, lines: Lines) -> tuple[int | None, str | None]:
        """Returns the number of lines and their checksum; None if they can be read only once."""
        extent = lines.measure()
        require(
            not self.resume or extent is not None,
            f"resume is true but {lines.name} can be read only once: put the text into a file",
        )
        return extent or (None, None)

    def _open_input(self, workdir: Run, stack: contextlib.ExitStack) -> Text:
        """Opens the text and its references."""
        if not self.input:
            sources, references = workdir.text(self.split)
            return Text(sources, *Extent.of(sources), references)
        lines = stack.enter_context(Lines(self.input))
        total, sha256 = self._extent(lines)
        if not self.reference:
            return Text(lines, total, sha256, None, lines.arrives_within)
        sources: Iterable[str] = lines
        if total is None:
            sources = list(lines)
            total = len(sources)
        with Lines(self.reference) as file:
            references = list(file)
        check_lengths(total, len(references))
        return Text(sources, total, sha256, references)

    @property
    def arrives(self) -> bool:
        """True if lines arrive over time (standard input or a pipe) and are answered at once."""
        names = [name for name in (self.input, self.score) if name]
        return any(name == "-" or as_path(name).is_fifo() for name in names)

    @property
    def places(self) -> dict[str, str]:
        """The paths of the text and its references, links resolved; empty where unset. Those of
        translations to score are there only if there are any."""
        files = {"input": self.input, "reference": self.reference}
        files |= {"score": self.score} if self.score else {}
        places = {
            key: name if name in ("", "-") else str(destination(name))
            for key, name in files.items()
        }
        return {"split": "" if self.input else self.split} | places


def read_references(folder: Path, summary: dict[str, Any]) -> list[str]:
    """Reads the references that the results in `folder` were scored against.

    Raises:
        UserError: they are missing or have changed.
    """
    request = summary["request"]
    if request["split"]:
        place = destination(str(destination(str(folder)) / request["workdir"]))
        _, references = Run(place).text(request["split"])
    else:
        place = Path(request["reference"])
        if not place.exists():
            raise UserError(
                f"{place}, the references of {folder}, is missing: restore it, or decode again"
            )
        with Lines(str(place)) as file:
            references = list(file)
    if Extent.of(references).sha256 != summary["references_sha256"]:
        raise UserError(
            f"{place} no longer holds the references of {folder}: restore them, or decode again"
        )
    return references


def _is_one_file(one: str, other: str) -> bool:
    """Returns whether both names lead to the same file."""
    paths = [as_path("/dev/stdin" if name == "-" else name) for name in (one, other)]
    try:
        return paths[0] == paths[1] or os.path.samefile(*paths)
    except OSError:  # a missing file is reported when it is opened
        return False
