# SPDX-License-Identifier: Apache-2.0
"""Translations on disk, each piece with its exit, beside a summary of all figures.

What has been translated of a long text outlasts the process, which another may then go on for.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dat_jax.decoding.translator import Translations
from dat_jax.errors import UserError
from dat_jax.evaluation.summary import Summary
from dat_jax.storage.files import LOCK, UNFINISHED, Unfinished, sole_writer
from dat_jax.storage.stamped import read_stamped, write_stamped

HYPOTHESES, EXITS, SUMMARY = "hypotheses.txt", "exits.jsonl", "summary.json"
PROGRESS = "progress.json"
_OURS = (HYPOTHESES, EXITS, SUMMARY)
_MEND = "name another folder for the results, or remove this one"
_LITTER = {LOCK, *(name + UNFINISHED for name in (*_OURS, PROGRESS))}


@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of results that are not finished, and what they are of."""

    request: dict[str, Any]
    contents: dict[str, Any]  # of what the request names: the text, the model
    sizes: list[int]  # bytes of each file
    tally: dict[str, Any]

    def check(self, contents: Mapping[str, Any]) -> None:
        """Makes sure that going on makes one piece.

        Raises:
            UserError: what the request names is not what it was.
        """
        for key, value in contents.items():
            if self.contents.get(key) != value:
                raise UserError(
                    f"--config.resume: the {key} is not the one that was begun with: put that "
                    "back, or remove the folder of results to start again"
                )


class ResultsWriter:
    """Writes `hypotheses.txt`, `exits.jsonl` (each line's tokens and exits) and `summary.json`.

    Use it as a context, and call `begin` first. Translations are written as they come; earlier
    results of the same request stay until all is finished, and no others are replaced.
    """

    def __init__(self, folder: Path, request: dict[str, Any], resume: bool = False) -> None:
        """Names a folder, all that its results depend on beside the contents of text and model, and
        if unfinished results are to be gone on with."""
        self._folder, self._request, self._resume = folder, request, resume

    def __enter__(self) -> "ResultsWriter":
        """Makes this process the folder's only writer.

        Raises:
            UserError: another process is, or the folder holds something else than earlier results
                of this request, or unfinished ones that are not to be gone on with.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(sole_writer(self._folder))
            _finish_renaming(self._folder, self._request)
            _check_folder(self._folder, self._request)
            self.progress = self._unfinished_progress()
            self._stack = stack.pop_all()
        return self

    def begin(self, contents: dict[str, Any]) -> bool:
        """Opens the files, for results of these contents.

        Args:
            contents: of what the request names, by checksums; None for what nobody could compare.

        Returns:
            Whether whole results of the same contents are there already.

        Raises:
            UserError: unfinished ones, which are to be gone on with, are of other contents.
        """
        self._contents = contents
        finished = _are_whole(self._folder, self._request, contents)
        if finished:
            self._drop_progress()
        if self.progress:
            self.progress.check(contents)
        sizes = self.progress.sizes if self.progress else ()
        paths = [self._folder / name for name in _OURS]
        self._unfinished = Unfinished(*paths, sizes=sizes)
        opened = self._stack.enter_context(self._unfinished)
        self._hypotheses, self._exits, self._summary = opened
        return finished

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        self._stack.close()
        if error and (self._folder / PROGRESS).exists():
            more = "run the same" if self._resume else "add --config.resume=true"
            error.add_note(f"{self._folder} keeps what was done: {more} to go on")

    def _unfinished_progress(self) -> Progress | None:
        """Reads how far unfinished results have come, if there are any, which must be ours."""
        progress = _read_progress(self._folder)
        if progress is None:
            return None
        if _are_whole(self._folder, progress.request, progress.contents):
            self._drop_progress()  # a kill came before that
            return None
        _check_request(self._folder, "unfinished results", progress.request, self._request)
        if not self._resume:
            raise UserError(
                f"{self._folder} holds unfinished results: go on with --config.resume=true, "
                f"or {_MEND}"
            )
        return progress

    def _drop_progress(self) -> None:
        self.progress = None
        (self._folder / PROGRESS).unlink(missing_ok=True)

    def add(self, translations: Translations) -> None:
        """Writes these too."""
        for sentence in translations.sentences:
            self._hypotheses.write(sentence.text + "\n")
            line = {
                "tokens": sentence.pieces,
                "exits": sentence.exits,
                "score": sentence.score,
            }
            self._exits.write(json.dumps(line, ensure_ascii=False) + "\n")

    def keep(self, tally: dict[str, Any]) -> None:
        """Makes sure that what was added outlasts this process, and the figures so far with it."""
        progress = Progress(self._request, self._contents, self._unfinished.keep(), tally)
        write_stamped(self._folder / PROGRESS, dataclasses.asdict(progress))

    def hypotheses(self) -> list[str]:
        """Returns what has been written."""
        self._hypotheses.flush()
        with open(self._hypotheses.name, encoding="utf-8", newline="\n") as file:
            return [line.removesuffix("\n") for line in file]

    def finish(self, summary: Summary) -> None:
        """Puts everything in its place."""
        values: Summary = {**summary, "request": self._request, "contents": self._contents}
        for file in (self._hypotheses, self._exits):
            file.flush()  # before the summary, which says that they are whole
        self._summary.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
        self._unfinished.finish()
        self._drop_progress()


class Results(NamedTuple):
    """Finished results."""

    hypotheses: list[str]
    summary: dict[str, Any]


def read_results(folder: Path) -> Results:
    """Reads what a `ResultsWriter` finished.

    Raises:
        UserError: there are none, or they are unfinished or damaged.
    """
    progress = _read_progress(folder)
    if not (folder / SUMMARY).exists() or (
        progress and not _are_whole(folder, progress.request, progress.contents)
    ):
        raise UserError(f"{folder} holds no finished results: let decode.py finish them")
    try:
        summary = dict(json.loads((folder / SUMMARY).read_text(encoding="utf-8")))
        text = (folder / HYPOTHESES).read_bytes().decode("utf-8")
        hypotheses = text.removesuffix("\n").split("\n")
    except (FileNotFoundError, ValueError, TypeError):
        raise UserError(f"{folder} holds damaged results: decode again") from None
    if len(hypotheses) != summary.get("sentences"):
        raise UserError(
            f"{folder / HYPOTHESES} has {len(hypotheses)} lines and {SUMMARY} says "
            f"{summary.get('sentences')}: decode again"
        )
    return Results(hypotheses, summary)


def _finish_renaming(folder: Path, request: dict[str, Any]) -> None:
    """Completes the renames of a process that was killed between them.

    All files are whole once the summary is, which is written last.
    """
    if _read_summary(folder / (SUMMARY + UNFINISHED)).get("request") == request:
        for name in _OURS:
            with contextlib.suppress(FileNotFoundError):  # it is in its place
                os.replace(folder / (name + UNFINISHED), folder / name)


def _are_whole(folder: Path, request: dict[str, Any], contents: Mapping[str, Any]) -> bool:
    """True if a folder holds whole results of this request and of these contents."""
    summary = _read_summary(folder / SUMMARY)
    same = (summary.get("request"), summary.get("contents")) == (request, contents)
    comparable = None not in contents.values()
    return same and comparable and all((folder / name).exists() for name in _OURS)


def _read_summary(path: Path) -> dict[str, Any]:
    """Reads a summary; an empty one if there is none, or half of one."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def _check_folder(folder: Path, request: dict[str, Any]) -> None:
    """Makes sure that nothing would be lost but earlier results of this request."""
    ours = {*_OURS, PROGRESS, *_LITTER}
    others = sorted(path.name for path in folder.iterdir() if path.name not in ours)
    if others:
        raise UserError(f"{folder} holds {others[0]}, which is no result of decoding: {_MEND}")
    if not any((folder / name).exists() for name in _OURS):
        return
    earlier = _read_summary(folder / SUMMARY).get("request")
    if not isinstance(earlier, dict):
        raise UserError(f"{folder} holds results and does not say of what: {_MEND}")
    _check_request(folder, "results", earlier, request)


def _read_progress(folder: Path) -> Progress | None:
    """Reads how far unfinished results have come, if there are any."""
    path = folder / PROGRESS
    try:
        return Progress(**read_stamped(path).values)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise UserError(f"{path} is damaged: {_MEND}") from None


def _check_request(
    folder: Path, what: str, earlier: dict[str, Any], request: dict[str, Any]
) -> None:
    for key in request | earlier:
        if earlier.get(key) != request.get(key):
            raise UserError(
                f"{folder} holds {what} with {key} = {earlier.get(key)!r}, not "
                f"{request.get(key)!r}: {_MEND}"
            )
