# SPDX-License-Identifier: Apache-2.0
"""python -m dat_jax.explore writes one page of a split or a file, or refuses in one line."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import dat_jax
from dat_jax.explore import __main__ as explore
from dat_jax.runs.workdir import Run
from tests.scripts.calls import files, refuse, succeed

pytestmark = pytest.mark.usefixtures("one_device")

main = explore.main


def data_of(page: Path) -> dict[str, Any]:
    """The data inside a page."""
    (text,) = re.findall(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    return json.loads(text)


@pytest.fixture
def asked(trained: Path, tmp_path: Path) -> list[str]:
    """The flags of a small page."""
    return [f"--workdir={trained}", f"--output={tmp_path / 'page.html'}", "--sentences=5"]


def test_the_validation_split_is_shown(trained: Path, tmp_path: Path, asked: list[str]):
    before = files(trained)
    page = tmp_path / "page.html"
    told = succeed(main, *asked, "--policy=token_geometric:0.5").stdout
    sources, references = Run(trained).text("valid")
    size = page.stat().st_size / 1e3
    assert told == f"wrote {page}: 5 of {len(sources)} sentences, {size:,.0f} kB\n"
    assert files(trained) == before
    data = data_of(page)
    assert [sentence["source"] for sentence in data["sentences"]] == sources[:5]
    assert [sentence["reference_text"] for sentence in data["sentences"]] == references[:5]
    found = dat_jax.load(trained).translate(sources[:5], policy="token_geometric:0.5")
    assert [sentence["text"] for sentence in data["sentences"]] == [one.text for one in found]
    exits = [tuple(sentence["exits"]) for sentence in data["sentences"]]
    assert exits == [one.exits for one in found]
    assert (data["run"], data["text"], data["depths"]) == (trained.name, "split valid", 2)
    assert str(trained.parent) not in page.read_text(encoding="utf-8")

    first = page.read_bytes()
    succeed(main, *asked, "--policy=token_geometric:0.5")  # replaces it
    assert page.read_bytes() == first
    succeed(main, *asked, "--split=test", "--policy=fixed:1", "--beam_size=2")
    data = data_of(page)
    assert data["sentences"][0]["source"] == Run(trained).text("test")[0][0]
    assert {exit for sentence in data["sentences"] for exit in sentence["exits"]} == {1}


def test_files_are_shown_without_their_blank_lines(tmp_path: Path, asked: list[str]):
    source, reference = tmp_path / "some.de", tmp_path / "some.en"
    source.write_text("sieben\n\nacht Uhr\n")
    reference.write_text("seven\n\neight o'clock\n")
    told = succeed(main, *asked, f"--input={source}", f"--reference={reference}").stdout
    assert ": 2 of 3 sentences" in told
    data = data_of(tmp_path / "page.html")
    assert [sentence["line"] for sentence in data["sentences"]] == [1, 3]
    assert data["sentences"][1]["reference_text"] == "eight o'clock"
    assert data["text"] == "some.de"
    told = succeed(main, *asked, "--input=-", text="elf\n").stdout
    assert ": 1 of 1 sentences" in told
    (sentence,) = data_of(tmp_path / "page.html")["sentences"]
    assert "reference" not in sentence


def test_bad_requests_are_refused_and_leave_nothing(
    trained: Path, tmp_path: Path, asked: list[str]
):
    page = tmp_path / "page.html"
    source, longer, blank, empty = (tmp_path / name for name in ("s", "longer", "blank", "empty"))
    source.write_text("sieben\n")
    longer.write_text("seven\neight\n")
    blank.write_text("\n  \n")
    empty.write_text("")
    for message, *more in (
        (f"--output={tmp_path} is a folder: name a file", f"--output={tmp_path}"),
        ("exists and is not such a page: name a new file", f"--output={source}"),
        (f"{source} is a file: name another place", f"--output={source / 'page.html'}"),
        ("No such file or directory: name a file with", f"--input={tmp_path / 'none'}"),
        ("empty is empty: put one sentence on each line", f"--input={empty}"),
        ("has only blank lines: put a sentence", f"--input={blank}"),
        ("1 sentences but 2 references", f"--input={source}", f"--reference={longer}"),
        ("reference is set but input is not", f"--reference={longer}"),
        ("the same file as input", f"--input={source}", f"--reference={source}"),
        ("policy is 'fixed:3': ", "--policy=fixed:3"),
        ("nothing has been tuned", "--policy=tuned:margin:AE<=2"),
        ("--split=train: must be one of valid, test", "--split=train"),
        ("--sentences=0: ", "--sentences=0"),
        ("--sentences=1001: ", "--sentences=1001"),
    ):
        refuse(message, main, *asked, *more)
    refuse("--output is missing: add --output=...", main, asked[0])
    assert source.read_text() == "sieben\n"
    assert not page.exists()

    nowhere = tmp_path / "nowhere"
    refuse("train a model into this workdir first", main, f"--workdir={nowhere}", *asked[1:])
    config = json.loads((trained / "config.json").read_text())
    config["model"] |= {"exits": "last", "exit_head": "none"}
    nowhere.mkdir()
    (nowhere / "config.json").write_text(json.dumps(config))
    one_exit = "has a model with one exit: train one with model.exits=all"
    refuse(one_exit, main, f"--workdir={nowhere}", *asked[1:])
    shutil.copy(trained / "config.json", nowhere)
    refuse("error: ", main, f"--workdir={nowhere}", *asked[1:], f"--input={source}")
    assert not page.exists()
