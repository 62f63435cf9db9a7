# SPDX-License-Identifier: Apache-2.0
"""Translations on disk, each piece with its exit, beside a summary of all figures."""

import json
from pathlib import Path
from typing import Any

from dat_jax.decoding.translator import Translations
from dat_jax.files import write_text


class ResultsWriter:
    """Writes `hypotheses.txt`, `exits.jsonl` (each line's tokens and exits) and `summary.json`.

    Translations are written as they come; whatever was there before stays until all is finished.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = ("hypotheses.txt", "exits.jsonl")

    def __enter__(self) -> "ResultsWriter":
        self._folder.mkdir(parents=True, exist_ok=True)
        self._hypotheses, self._exits = (
            self._unfinished(name).open("w", encoding="utf-8", newline="\n") for name in self._names
        )
        return self

    def __exit__(self, *_: object) -> None:
        for name, file in zip(self._names, (self._hypotheses, self._exits), strict=True):
            file.close()
            self._unfinished(name).unlink(missing_ok=True)

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
        for name, file in zip(self._names, (self._hypotheses, self._exits), strict=True):
            file.close()
            self._unfinished(name).replace(self._folder / name)
        text = json.dumps(summary, indent=2, ensure_ascii=False)
        write_text(self._folder / "summary.json", text + "\n")

    def _unfinished(self, name: str) -> Path:
        return self._folder / f"{name}.unfinished"
