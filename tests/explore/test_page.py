# SPDX-License-Identifier: Apache-2.0
"""A page is one file: its parts are allowed by checksum, and its data are what was given."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dat_jax.errors import UserError
from dat_jax.explore.page import check_output, render, write
from tests.explore.cases import data

DEMO = Path(__file__).resolve().parent.parent.parent / "docs" / "explorer_demo.html"


class Elements(HTMLParser):
    """The text of scripts, styles and title, in their order, and all attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts = [("", "")]
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        self.texts.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        self.texts.append(("", ""))

    def handle_data(self, data: str) -> None:
        tag, text = self.texts[-1]
        self.texts[-1] = (tag, text + data)

    def of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


@pytest.mark.parametrize("references", [True, False])
def test_data_come_back_whatever_the_text_says(references: bool):
    given = data(references=references)
    elements = Elements(render("Exits of <x> & {{data}}", given))
    shown, script = elements.of("script")
    assert json.loads(shown) == json.loads(json.dumps(given))
    assert "<" not in shown
    assert elements.of("title") == elements.of("h1") == ["Exits of <x> & {{data}}"]
    assert script.count("{{") == 0


def test_the_policy_allows_the_style_and_the_script_and_nothing_else():
    page = render("Exits", data())
    elements = Elements(page)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed.pop("default-src") == "'none'"
    for name, text in (
        ("style-src", elements.of("style")[0]),
        ("script-src", elements.of("script")[1]),
    ):
        checksum = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert allowed.pop(name) == f"'sha256-{checksum}'"
    assert set(allowed.values()) == {"'none'"}
    assert {"src", "href", "style"}.isdisjoint(name for name, _ in elements.attributes)


def test_equal_data_give_equal_pages():
    assert render("Exits", data()) == render("Exits", json.loads(json.dumps(data())))


def test_the_page_in_docs_is_one_of_ours_and_small():
    """On failure, render its data again, or make it by the command of docs/explore.md."""
    page = DEMO.read_text(encoding="utf-8")
    elements = Elements(page)
    (title,) = elements.of("title")
    assert render(title, json.loads(elements.of("script")[0])) == page
    assert len(page.encode()) < 300_000


def test_only_an_earlier_page_is_replaced(tmp_path: Path):
    page = tmp_path / "new" / "page.html"
    check_output(page)
    assert not page.parent.exists()
    write(page, render("Exits", data()))
    check_output(page)
    other = tmp_path / "other.html"
    other.write_text("<!doctype html>")
    for path, message in (
        (tmp_path, "is a folder: name a file"),
        (other, "exists and is not such a page"),
        (other / "page.html", f"{other} is a file: name another place"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            check_output(path)
