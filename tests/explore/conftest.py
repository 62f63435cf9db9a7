# SPDX-License-Identifier: Apache-2.0
"""Pages that are open in a browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dat_jax.explore.page import render, write
from tests.explore.cases import data

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium: the system's, or else Playwright's own; skips if there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    system = next(filter(None, map(shutil.which, NAMES)), None)
    with playwright.sync_playwright() as running:
        path = system or running.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no Chromium")
        chromium = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module", params=[True, False], ids=["references", "no references"])
def shown(browser: Any, tmp_path_factory: Any, request: Any) -> Iterator[tuple[Any, dict]]:
    """An open page and its data; fails if the page asks for anything or reports an error."""
    values = data(references=request.param)
    file = tmp_path_factory.mktemp("page") / "page.html"
    write(file, render("Exits of <tiny>", values))
    page = browser.new_page(viewport={"width": 1400, "height": 800})
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda asked: problems.append(asked.url))
    page.set_default_timeout(5_000)
    page.goto(file.as_uri())
    yield page, values
    assert problems == [file.as_uri()]
    page.close()
