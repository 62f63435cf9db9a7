# SPDX-License-Identifier: Apache-2.0
"""The text that is to be translated: a split of the data, a file, or standard input."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dat_jax.config.schema import require
from dat_jax.decoding.lines import Extent, Lines
from dat_jax.errors import UserError
from dat_jax.evaluation.scores import check_lengths
from dat_jax.runs.workdir import Run
from dat_jax.storage.paths import as_path, destination


class Text(NamedTuple):
    """An opened text."""

    lines: Iterable[str]
    total: int | None  # lines, if that is known
    sha256: str | None  # None: it cannot be read again
    references: list[str] | None
    arrives_within: Callable[[float], bool] = lambda _: True

    @property
    def checksums(self) -> dict[str, str | None]:
        """Returns what tells by their contents if results are of one text."""
        if self.references is None:
            return {"text_sha256": self.sha256}
        references = Extent.of(self.references).sha256
        return {"text_sha256": self.sha256, "references_sha256": references}


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The text to translate, its references, and the folder for the results."""

    split: Literal["valid", "test"]
    input: str
    reference: str
    output: str
    resume: bool

    def __post_init__(self) -> None:
        require(
            bool(self.input) or not self.reference,
            "reference is set and input is not: a split has its own references",
        )
        require(
            not self.reference or not _is_one_file(self.input, self.reference),
            f"reference is {self.reference}, and so is input: name the file of its translations",
        )

    def open(self, workdir: Run, stack: contextlib.ExitStack) -> Text:
        """Opens the text, once, until `stack` ends, and reads its references if there are any.

        Raises:
            UserError: it cannot be read, or not again if unfinished results are to be gone on with,
                or there are more or fewer references than lines.
        """
        if not self.input:
            sources, references = workdir.text(self.split)
            return Text(sources, *Extent.of(sources), references)
        lines = stack.enter_context(Lines(self.input))
        extent = lines.measure()
        require(
            not self.resume or extent is not None,
            f"resume is true and {lines.name} can be read only once: put the text into a file",
        )
        total, sha256 = extent or (None, None)
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
        """True of standard input and of pipes, which are answered as they come."""
        return self.input == "-" or (bool(self.input) and as_path(self.input).is_fifo())

    @property
    def places(self) -> dict[str, str]:
        """The places of the text and its references, links resolved; empty if not asked for."""
        files = {"input": self.input, "reference": self.reference}
        places = {
            key: name if name in ("", "-") else str(destination(name))
            for key, name in files.items()
        }
        return {"split": "" if self.input else self.split} | places


def read_references(folder: Path, summary: dict[str, Any]) -> list[str]:
    """Reads the references by which the results in `folder` were scored.

    Raises:
        UserError: they are not where they were, or others are.
    """
    request = summary["request"]
    if request["split"]:
        place = destination(str(destination(str(folder)) / request["workdir"]))
        _, references = Run(place).text(request["split"])
    else:
        place = Path(request["reference"])
        if not place.exists():
            raise UserError(
                f"{place}, the references of {folder}, is missing: put it back, or decode again"
            )
        with Lines(str(place)) as file:
            references = list(file)
    if Extent.of(references).sha256 != summary["references_sha256"]:
        raise UserError(
            f"{place} does not hold the references of {folder} any more: put them back, or decode "
            "again"
        )
    return references


def _is_one_file(one: str, other: str) -> bool:
    """True if both names are of one file, by whatever links."""
    paths = [as_path("/dev/stdin" if name == "-" else name) for name in (one, other)]
    try:
        return paths[0] == paths[1] or os.path.samefile(*paths)
    except OSError:  # of a missing one, which is told when it is opened
        return False
