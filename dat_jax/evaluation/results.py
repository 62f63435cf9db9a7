# SPDX-License-Identifier: Apache-2.0
"""Translations on disk, each piece with its exit, beside a summary of all figures."""

import contextlib
import json
from pathlib import Path
from typing import Any

from dat_jax.decoding.translator import Translations
from dat_jax.errors import UserError
from dat_jax.files import LOCK, UNFINISHED, Unfinished, sole_writer

HYPOTHESES, EXITS, SUMMARY = "hypotheses.txt", "exits.jsonl", "summary.json"
_OURS = (HYPOTHESES, EXITS, SUMMARY)


class ResultsWriter:
    """Writes `hypotheses.txt`, `exits.jsonl` (each line's tokens and exits) and `summary.json`.

    Use it as a context. Translations are written as they come; earlier results of the same request
    stay until all is finished, and no others are replaced.
    """

    def __init__(self, folder: Path, request: dict[str, Any]) -> None:
        """Names a folder, and all that its results depend on beside the trained model."""
        self._folder, self._request = folder, request
        self._unfinished = Unfinished(*(folder / name for name in _OURS))

    def __enter__(self) -> "ResultsWriter":
        """Makes this process the folder's only writer.

        Raises:
            UserError: another process is, or the folder holds something else than earlier results
                of this request.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(sole_writer(self._folder))
            _check_contents(self._folder, self._request)
            self._hypotheses, self._exits, self._summary = stack.enter_context(self._unfinished)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

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

    def finish(self, summary: dict[str, Any]) -> None:
        """Puts everything in its place."""
        values = summary | {"request": self._request}
        self._summary.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
        self._unfinished.finish()


def _check_contents(folder: Path, request: dict[str, Any]) -> None:
    """Makes sure that nothing would be lost but earlier results of this request."""
    mend = "name another folder with --config.output, or remove this one"
    ours = {LOCK, *_OURS, *(name + UNFINISHED for name in _OURS)}
    others = sorted(path.name for path in folder.iterdir() if path.name not in ours)
    if others:
        raise UserError(f"{folder} holds {others[0]}, which is no result of decoding: {mend}")
    if not any((folder / name).exists() for name in _OURS):
        return
    try:
        earlier = dict(json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["request"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} holds results and does not say of what: {mend}") from None
    for key in request | earlier:
        if earlier.get(key) != request.get(key):
            raise UserError(
                f"{folder} holds results with {key} = {earlier.get(key)!r}, not "
                f"{request.get(key)!r}: {mend}"
            )
