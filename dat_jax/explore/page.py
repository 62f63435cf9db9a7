# SPDX-License-Identifier: Apache-2.0
"""Writes a page that shows data: one file with its style, its script and the data inside.

The page loads nothing: its content security policy allows the style and the script by checksum, and
no request.
"""

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

from dat_jax.config.schema import require
from dat_jax.storage.files import write_text

_FILES = Path(__file__).parent / "files"
_SCRIPTS = ("figures.js", "tokens.js", "page.js")
_MARK = '<meta name="generator" content="dat_jax.explore">'
_HEAD = 2_048  # characters of a page in which the mark stands


def render(title: str, data: dict[str, Any]) -> str:
    """Returns the page; equal data give equal pages."""
    style = _read("page.css")
    script = "\n".join(_read(name) for name in _SCRIPTS)
    parts = {
        "mark": _MARK,
        "title": html.escape(title),
        "style": style,
        "style_sha256": _checksum(style),
        "script": script,
        "script_sha256": _checksum(script),
        "data": _in_script(data),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("page.html"))


def check_output(path: Path) -> None:
    """Makes sure that the page can be written there.

    Raises:
        UserError: the path is a folder or below a file, or a file that is no such page.
    """
    require(not path.is_dir(), f"--output={path} is a folder: name a file, such as page.html")
    for folder in path.parents:
        is_fine = folder.is_dir() or not folder.exists()
        require(is_fine, f"--output={path}: {folder} is a file: name another place")
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            is_page = _MARK in file.read(_HEAD)
        require(
            is_page, f"--output={path} exists and is not such a page: name a new file or remove it"
        )


def write(path: Path, page: str) -> None:
    """Writes a page, and the folders above it if they are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def _read(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def _checksum(text: str) -> str:
    """Returns the checksum by which a content security policy allows an element of this text."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _in_script(data: dict[str, Any]) -> str:
    """Returns JSON that cannot end the element around it, whatever the text says."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", r"\u003c")
