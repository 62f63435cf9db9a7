# SPDX-License-Identifier: Apache-2.0
"""Results of decoding on disk: translations, the exits of their pieces, lists, and a summary.

Results of a long text are kept as they come, so a later process can resume an interrupted decode.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dat_jax.errors import UserError
from dat_jax.evaluation.summary import ScoreSummary, Summary
from dat_jax.storage.files import LOCK, UNFINISHED, Unfinished, sole_writer
from dat_jax.storage.stamped import read_stamped, write_stamped

HYPOTHESES, EXITS, N_BEST = "hypotheses.txt", "exits.jsonl", "nbest.txt"
SCORES = "scores.jsonl"
SUMMARY, PROGRESS = "summary.json", "progress.json"
_OURS = (HYPOTHESES, EXITS, N_BEST, SCORES, SUMMARY)
_FIX = "give another folder for the results, or remove this one"
_LITTER = {LOCK, *(name + UNFINISHED for name in (*_OURS, PROGRESS))}


@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of unfinished results, with the request and inputs that they belong to."""

    request: dict[str, Any]
    contents: dict[str, Any]  # checksums of the text and the model
    sizes: list[int]  # bytes of each file
    tally: dict[str, Any]

    def check(self, contents: Mapping[str, Any]) -> None:
        """Checks that text and model have not changed since the results were begun.

        Raises:
            UserError: they have changed.
        """
        for key, value in contents.items():
            if self.contents.get(key) != value:
                raise UserError(
                    f"--config.resume: the {key} has changed since the results were begun: restore "
                    "it, or remove the folder of results to start again"
                )


class ResultsWriter:
    """Writes lines to some files as they come, `hypotheses.txt` for example, and `summary.json`.

    Use it as a context, and call `begin` first. Replaces only earlier results of the same request,
    once the new ones are finished.
    """

    def __init__(
        self,
        folder: Path,
        request: dict[str, Any],
        resume: bool = False,
        names: Sequence[str] = (HYPOTHESES, EXITS),
    ) -> None:
        """Names the folder and its files.

        Args:
            folder: the folder.
            request: what results depend on, besides the contents of text and model.
            resume: whether to continue unfinished results.
            names: the files besides the summary; `add` writes to them.
        """
        self._folder, self._request, self._resume = folder, request, resume
        self.names = tuple(names)
        self._all: tuple[str, ...] = (*self.names, SUMMARY)

    def __enter__(self) -> "ResultsWriter":
        """Makes this process the folder's only writer.

        Raises:
            UserError: another process is writing there, or the folder holds anything else than
                earlier results of this request, or unfinished results without `resume`.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(sole_writer(self._folder))
            _finish_renaming(self._folder, self._request, self._all)
            _check_folder(self._folder, self._request)
            self.progress = self._unfinished_progress()
            self._stack = stack.pop_all()
        return self

    def begin(self, contents: dict[str, Any]) -> bool:
        """Opens the files for writing.

        Args:
            contents: checksums of text and model; None for a text that can be read only once.

        Returns:
            Whether finished results of the same contents already exist.

        Raises:
            UserError: unfinished results are of other contents.
        """
        self._contents = contents
        finished = _are_whole(self._folder, self._request, contents, self._all)
        if finished:
            self._drop_progress()
        if self.progress:
            self.progress.check(contents)
        sizes = self.progress.sizes if self.progress else ()
        paths = [self._folder / name for name in self._all]
        self._unfinished = Unfinished(*paths, sizes=sizes)
        *self._files, self._summary = self._stack.enter_context(self._unfinished)
        return finished

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        self._stack.close()
        if error and (self._folder / PROGRESS).exists():
            more = "run the same again" if self._resume else "add --config.resume=true"
            error.add_note(f"{self._folder} keeps what was done: {more} to resume")

    def _unfinished_progress(self) -> Progress | None:
        """Reads the progress of unfinished results, if any, and checks their request."""
        progress = _read_progress(self._folder)
        if progress is None:
            return None
        if _are_whole(self._folder, progress.request, progress.contents, self._all):
            self._drop_progress()  # a process was killed just before it did this
            return None
        _check_request(self._folder, "unfinished results", progress.request, self._request)
        if not self._resume:
            raise UserError(
                f"{self._folder} holds unfinished results: resume them with --config.resume=true, "
                f"or {_FIX}"
            )
        return progress

    def _drop_progress(self) -> None:
        self.progress = None
        (self._folder / PROGRESS).unlink(missing_ok=True)

    def add(self, *lines: Sequence[str]) -> None:
        """Appends lines to each file, in the order of their names."""
        for file, own in zip(self._files, lines, strict=True):
            file.writelines(line + "\n" for line in own)

    def keep(self, tally: dict[str, Any]) -> None:
        """Writes everything added so far, and the figures in `tally`, to disk for resuming."""
        progress = Progress(self._request, self._contents, self._unfinished.keep(), tally)
        write_stamped(self._folder / PROGRESS, dataclasses.asdict(progress))

    def lines(self, name: str) -> list[str]:
        """Returns the lines that were written to a file so far."""
        file = self._files[self.names.index(name)]
        file.flush()
        with open(file.name, encoding="utf-8", newline="\n") as file:
            return [line.removesuffix("\n") for line in file]

    def finish(self, summary: Summary | ScoreSummary) -> None:
        """Writes the summary and renames all files to their final names."""
        values = {**summary, "request": self._request, "contents": self._contents}
        for file in self._files:
            file.flush()  # before the summary, which marks them as complete
        self._summary.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
        self._unfinished.finish()
        self._drop_progress()


class Results(NamedTuple):
    """Finished results."""

    hypotheses: list[str]
    summary: dict[str, Any]


def read_results(folder: Path) -> Results:
    """Reads translations and their summary that a `ResultsWriter` finished.

    Raises:
        UserError: they are missing, unfinished or damaged.
    """
    progress = _read_progress(folder)
    names = (HYPOTHESES, SUMMARY)
    if (
        not (folder / SUMMARY).exists()
        or (folder / SCORES).exists()
        or (progress and not _are_whole(folder, progress.request, progress.contents, names))
    ):
        raise UserError(f"{folder} holds no finished results: run decode.py to the end")
    try:
        summary = dict(json.loads((folder / SUMMARY).read_text(encoding="utf-8")))
        text = (folder / HYPOTHESES).read_bytes().decode("utf-8")
        hypotheses = text.removesuffix("\n").split("\n")
    except (FileNotFoundError, ValueError, TypeError):
        raise UserError(f"{folder} holds damaged results: decode again") from None
    if len(hypotheses) != summary.get("sentences"):
        raise UserError(
            f"{folder / HYPOTHESES} has {len(hypotheses)} lines, but {SUMMARY} says "
            f"{summary.get('sentences')}: decode again"
        )
    return Results(hypotheses, summary)


def _finish_renaming(folder: Path, request: dict[str, Any], names: Sequence[str]) -> None:
    """Completes the renames of a process that was killed between them.

    The summary is written last, so a complete summary means that all files are complete.
    """
    if _read_summary(folder / (SUMMARY + UNFINISHED)).get("request") == request:
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # already renamed
                os.replace(folder / (name + UNFINISHED), folder / name)


def _are_whole(
    folder: Path, request: dict[str, Any], contents: Mapping[str, Any], names: Sequence[str]
) -> bool:
    """Returns whether a folder holds these files, finished, of this request and these contents."""
    summary = _read_summary(folder / SUMMARY)
    same = (summary.get("request"), summary.get("contents")) == (request, contents)
    comparable = None not in contents.values()
    return same and comparable and all((folder / name).exists() for name in names)


def _read_summary(path: Path) -> dict[str, Any]:
    """Reads a summary; returns an empty one if it is missing or incomplete."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def _check_folder(folder: Path, request: dict[str, Any]) -> None:
    """Checks that only earlier results of this request would be replaced."""
    ours = {*_OURS, PROGRESS, *_LITTER}
    others = sorted(path.name for path in folder.iterdir() if path.name not in ours)
    if others:
        raise UserError(f"{folder} holds {others[0]}, which is not a result of decoding: {_FIX}")
    if not any((folder / name).exists() for name in _OURS):
        return
    earlier = _read_summary(folder / SUMMARY).get("request")
    if not isinstance(earlier, dict):
        raise UserError(f"{folder} holds results of an unknown request: {_FIX}")
    _check_request(folder, "results", earlier, request)


def _read_progress(folder: Path) -> Progress | None:
    """Reads the progress of unfinished results; returns None if there are none."""
    path = folder / PROGRESS
    try:
        return Progress(**read_stamped(path).values)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise UserError(f"{path} is damaged: {_FIX}") from None


def _check_request(
    folder: Path, what: str, earlier: dict[str, Any], request: dict[str, Any]
) -> None:
    for key in request | earlier:
        if earlier.get(key) != request.get(key):
            raise UserError(
                f"{folder} holds {what} with {key} = {earlier.get(key)!r}, not "
                f"{request.get(key)!r}: {_FIX}"
            )
