# SPDX-License-Identifier: Apache-2.0
"""The text that is to be translated: a split of the data, a file, or standard input."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from dat_jax.decoding.lines import Extent, Lines
from dat_jax.evaluation.scores import check_lengths
from dat_jax.paths import as_path, destination
from dat_jax.schema import require
from dat_jax.workdir import Run


class Text(NamedTuple):
    """An opened text."""

    lines: Iterable[str]
    total: int | None  # lines, if that is known
    sha256: str | None  # None: it cannot be read again
    references: list[str] | None
    arrives_within: Callable[[float], bool] = lambda _: True


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
            not self.resume or (extent is not None and self.input != "-"),
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
    def places(self) -> dict[str, str]:
        """The places of the text and its references, links resolved; empty if not asked for."""
        files = {"input": self.input, "reference": self.reference}
        places = {
            key: name if name in ("", "-") else str(destination(name))
            for key, name in files.items()
        }
        return {"split": "" if self.input else self.split} | places


def _is_one_file(one: str, other: str) -> bool:
    """True if both names are of one file, by whatever links."""
    paths = [as_path("/dev/stdin" if name == "-" else name) for name in (one, other)]
    try:
        return paths[0] == paths[1] or os.path.samefile(*paths)
    except OSError:  # of a missing one, which is told when it is opened
        return False
