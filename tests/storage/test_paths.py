# SPDX-License-Identifier: Apache-2.0
"""Paths are compared by their destination, and may start with ~."""

import os
from pathlib import Path

import pytest

from dat_jax.runs.workdir import Run
from dat_jax.storage.paths import as_path, destination, missing_target, same_destination


def test_a_tilde_expands_only_to_a_known_home(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert as_path("~/run") == Path("/home/me/run")
    assert as_path("a/~/run") == Path.cwd() / "a/~/run"
    assert as_path("~nobody_of_this_name/run") == Path.cwd() / "~nobody_of_this_name/run"


def test_paths_do_not_change_with_the_working_directory(folder: Path):
    (folder / "here").mkdir()
    paths = [as_path("text/../run"), as_path("link"), as_path(""), Run(Path("run")).path]
    os.chdir(folder / "here")
    places = ["text/../run", "link", "", "run"]
    assert paths == [folder / place for place in places]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to("text")
    return tmp_path


@pytest.mark.parametrize("name", ["text", "text/", "./text", "~/text", "link", "a/../text"])
def test_all_names_of_a_folder_are_equal(folder: Path, name: str):
    assert destination(name) == folder / "text"
    assert same_destination(name, str(folder / "text"))
    assert not same_destination(name, "texts")


def test_only_a_link_that_leads_nowhere_has_a_missing_target(folder: Path):
    assert missing_target("link") == str(folder / "text")
    (folder / "text").mkdir()
    assert missing_target("link") is None
    assert missing_target("text") is None
