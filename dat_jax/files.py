# SPDX-License-Identifier: Apache-2.0
"""Files that are either whole or what they were before."""

from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Writes a whole file or, if interrupted, leaves the one that was there."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
