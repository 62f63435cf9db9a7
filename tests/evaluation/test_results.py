# SPDX-License-Identifier: Apache-2.0
"""Results on disk are complete or absent, and unfinished ones can be resumed."""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dat_jax.decoding.translator import Translation
from dat_jax.errors import UserError
from dat_jax.evaluation import formats
from dat_jax.evaluation.results import ResultsWriter, read_results
from tests.storage.test_files import size_limit


def lines(*sentences: Translation) -> tuple[list[str], list[str]]:
    """The lines of both files."""
    return [one.text for one in sentences], [formats.exits(0, one) for one in sentences]


REQUEST = {"input": "a/text", "beam_size": 4}
CONTENTS = {"text": "abc", "model": "def"}
EIGHT = Translation("acht \u2028 ü", ("▁acht", "</s>"), (1, 2), -0.5, 2)
EMPTY = Translation("", (), (), 0.0, 1)


@contextlib.contextmanager
def begin(
    folder: Path, request: dict[str, Any], contents: dict[str, Any], resume: bool = False
) -> Iterator[tuple[ResultsWriter, bool]]:
    """A writer that has begun, and whether finished results existed."""
    with ResultsWriter(folder, request, resume) as writer:
        yield writer, writer.begin(contents)


@contextlib.contextmanager
def opened(
    folder: Path, request: dict[str, Any], contents: dict[str, Any], resume: bool = False
) -> Iterator[ResultsWriter]:
    """A writer that has begun."""
    with begin(folder, request, contents, resume) as (writer, _):
        yield writer


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_results_have_one_line_per_sentence_in_order(tmp_path: Path):
    folder = tmp_path / "new" / "folder"
    with opened(folder, REQUEST, CONTENTS) as writer:
        writer.add(*lines(EIGHT, EMPTY))
        assert not (folder / "hypotheses.txt").exists()
        writer.add(*lines(EMPTY, EIGHT))
        writer.finish({"bleu": 1.5})
    written = contents(folder)
    assert written.keys() == {"hypotheses.txt", "exits.jsonl", "summary.json"}
    assert written["hypotheses.txt"].split("\n") == [EIGHT.text, "", "", EIGHT.text, ""]
    exits = [json.loads(line) for line in written["exits.jsonl"].split("\n")[:-1]]
    eight = {"tokens": ["▁acht", "</s>"], "exits": [1, 2], "score": -0.5}
    assert exits == [eight, *[{"tokens": [], "exits": [], "score": 0.0}] * 2, eight]
    assert json.loads(written["summary.json"]) == {
        "bleu": 1.5,
        "request": REQUEST,
        "contents": CONTENTS,
    }


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError, None])
def test_unfinished_results_leave_earlier_ones(tmp_path: Path, error):
    with opened(tmp_path, REQUEST, CONTENTS) as writer:
        writer.add(*lines(EIGHT))
        writer.finish({"bleu": 1.5})
    before = contents(tmp_path)
    assert len(before) == 3

    def write_half() -> None:
        with opened(tmp_path, REQUEST, CONTENTS) as writer:
            writer.add(*lines(EMPTY, EMPTY))
            assert contents(tmp_path).items() >= before.items()
            assert len(contents(tmp_path)) > len(before)
            if error:
                raise error

    if error:
        with pytest.raises(error):
            write_half()
    else:
        write_half()
    assert contents(tmp_path) == before


def write(
    folder: Path,
    request: dict[str, Any],
    *sentences: Translation,
    contents: dict[str, Any] = CONTENTS,
) -> None:
    with opened(folder, request, contents) as writer:
        writer.add(*lines(*sentences))
        writer.finish({"bleu": 1.5})


def test_results_only_replace_those_of_the_same_request(tmp_path: Path):
    write(tmp_path, REQUEST, EIGHT)
    write(tmp_path, REQUEST, EMPTY)
    before = contents(tmp_path)
    assert before["hypotheses.txt"] == "\n"
    for key, value in {"input": "b/text", "beam_size": 1, "split": "test"}.items():
        message = f"holds results with {key} = .*, not {value!r}: give another folder for"
        with pytest.raises(UserError, match=message):
            write(tmp_path, REQUEST | {key: value}, EIGHT)
    with pytest.raises(UserError, match="holds results with beam_size = 4, not None"):
        write(tmp_path, {"input": "a/text"}, EIGHT)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("summary", [None, "", "[]", '{"bleu": 1.5}', '{"request": null}'])
def test_results_of_an_unknown_request_are_kept(tmp_path: Path, summary: str | None):
    (tmp_path / "hypotheses.txt").write_text("something")
    if summary is not None:
        (tmp_path / "summary.json").write_text(summary)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="holds results of an unknown request: give another folder"):
        write(tmp_path, REQUEST, EIGHT)
    assert contents(tmp_path) == before


def test_only_leftovers_of_a_killed_process_are_replaced(tmp_path: Path):
    for name in ("hypotheses.txt.unfinished", ".lock"):
        (tmp_path / name).write_text("of a killed process")
    write(tmp_path, REQUEST, EIGHT)
    assert len(contents(tmp_path)) == 3
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match="holds notes, which is not a result of decoding"):
        write(tmp_path, REQUEST, EMPTY)
    assert contents(tmp_path)["hypotheses.txt"] == EIGHT.text + "\n"


def test_a_folder_has_one_writer(tmp_path: Path):
    with opened(tmp_path, REQUEST, CONTENTS) as writer:
        with pytest.raises(UserError, match="is being written by process"):
            write(tmp_path, REQUEST, EMPTY)
        writer.add(*lines(EIGHT))
        writer.finish({})
    assert contents(tmp_path)["hypotheses.txt"] == EIGHT.text + "\n"


def test_a_full_disk_leaves_earlier_results(tmp_path: Path):
    write(tmp_path, REQUEST, EMPTY)
    before = contents(tmp_path)
    long = Translation("x" * (1 << 21), (), (), 0.0, 1)
    with size_limit(1 << 20), pytest.raises(OSError, match="too large"):
        write(tmp_path, REQUEST, long)
    assert contents(tmp_path) == before


def test_an_input_name_that_is_not_utf8_is_stored(tmp_path: Path):
    request = {"input": os.fsdecode(b"/t\xffxt \xc3\xbc")}
    write(tmp_path, request, EIGHT)
    assert "/t\\udcffxt ü" in contents(tmp_path)["summary.json"]
    write(tmp_path, request, EMPTY)
    assert contents(tmp_path)["hypotheses.txt"] == "\n"


def keep(folder: Path, resume: bool, *sentences: Translation) -> None:
    with opened(folder, REQUEST, CONTENTS, resume=resume) as writer:
        writer.add(*lines(*sentences))
        writer.keep({"sentences": len(sentences)})
        writer.add(*lines(EMPTY, EMPTY))
        raise KeyboardInterrupt


def test_resuming_continues_from_the_last_kept_results(tmp_path: Path):
    write(tmp_path, REQUEST, EMPTY, contents=CONTENTS | {"model": "before it trained on"})
    finished = contents(tmp_path)
    with pytest.raises(KeyboardInterrupt) as raised:
        keep(tmp_path, False, EIGHT)
    assert "keeps what was done: add --config.resume=true to resume" in raised.value.__notes__[0]
    assert contents(tmp_path).items() >= finished.items()
    with pytest.raises(UserError, match=r"resume them with --config\.resume=true, or give"):
        write(tmp_path, REQUEST, EIGHT)
    for key in CONTENTS:
        other = opened(tmp_path, REQUEST, CONTENTS | {key: "other"}, resume=True)
        with pytest.raises(UserError, match=f"the {key} has changed since the results were begun"):
            other.__enter__()
    with opened(tmp_path, REQUEST, CONTENTS, resume=True) as writer:
        assert writer.progress
        assert writer.progress.tally == {"sentences": 1}
        assert writer.lines("hypotheses.txt") == [EIGHT.text]
        writer.add(*lines(EIGHT))
        assert writer.lines("hypotheses.txt") == [EIGHT.text] * 2
        writer.finish({"bleu": 2.5})
    written = contents(tmp_path)
    assert written.keys() == finished.keys()
    assert written["hypotheses.txt"] == f"{EIGHT.text}\n" * 2
    assert written["exits.jsonl"].count("\n") == 2


def test_failed_attempts_to_resume_lose_no_kept_results(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path, False, EIGHT)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="holds unfinished results with beam_size = 4, not 1"):
        opened(tmp_path, REQUEST | {"beam_size": 1}, CONTENTS, resume=True).__enter__()
    with (
        pytest.raises(OSError, match="Disk full"),
        opened(tmp_path, REQUEST, CONTENTS, resume=True),
    ):
        raise OSError("Disk full")
    assert contents(tmp_path).keys() == before.keys()
    (tmp_path / "hypotheses.txt.unfinished").write_text("")
    with pytest.raises(UserError, match="is shorter than when it was kept: remove its folder"):
        opened(tmp_path, REQUEST, CONTENTS, resume=True).__enter__()
    (tmp_path / "progress.json").write_text("[]")
    with pytest.raises(UserError, match=r"progress.json is damaged: give another folder"):
        opened(tmp_path, REQUEST, CONTENTS, resume=True).__enter__()


def test_resuming_without_earlier_results_starts_from_scratch(tmp_path: Path):
    with begin(tmp_path, REQUEST, CONTENTS, resume=True) as (writer, finished):
        assert not writer.progress
        assert not finished
        writer.add(*lines(EIGHT))
        writer.finish({})
    with begin(tmp_path, REQUEST, CONTENTS, resume=True) as (_, finished):
        assert finished
    assert contents(tmp_path)["hypotheses.txt"] == EIGHT.text + "\n"


def test_finished_results_are_recognised_by_their_contents(tmp_path: Path):
    write(tmp_path, REQUEST, EIGHT)
    others = [CONTENTS | {key: "other"} for key in CONTENTS] + [CONTENTS | {"reference": "ghi"}]
    for other in (*others, CONTENTS | {"text": None}):
        with begin(tmp_path, REQUEST, other, resume=True) as (_, finished):
            assert not finished
    before = contents(tmp_path)
    unknown = json.loads(before["summary.json"])
    del unknown["contents"]  # as in an older version
    (tmp_path / "summary.json").write_text(json.dumps(unknown))
    with begin(tmp_path, REQUEST, CONTENTS, resume=True) as (_, finished):
        assert not finished


def test_results_of_a_pipe_never_count_as_finished(tmp_path: Path):
    pipe = CONTENTS | {"text": None}
    for _ in range(2):
        with begin(tmp_path, REQUEST, pipe) as (writer, finished):
            assert not finished
            writer.add(*lines(EIGHT))
            writer.finish({})


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("renamed", range(4))
def test_a_kill_between_the_last_renames_still_leaves_finished_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: int, kept: bool, earlier: bool
):
    folder, killed, replace, places = tmp_path / "whole", tmp_path / "killed", os.replace, []
    if earlier:
        write(folder, REQUEST, EMPTY, EMPTY)

    def replace_or_be_killed(source: str, place: Path) -> None:
        if place.name != "progress.json":
            places.append(place)
            if len(places) == renamed + 1:
                shutil.copytree(folder, killed)
        replace(source, place)

    with opened(folder, REQUEST, CONTENTS) as writer:
        writer.add(*lines(EIGHT))
        if kept:
            writer.keep({"sentences": 1})
            shutil.copy(folder / "progress.json", tmp_path)
        writer.add(*lines(EMPTY))
        monkeypatch.setattr(os, "replace", replace_or_be_killed)
        writer.finish({"sentences": 2})
        monkeypatch.undo()
        if renamed == 3:
            shutil.copytree(folder, killed)
            if kept:
                shutil.copy(tmp_path / "progress.json", killed)
    if renamed == 3:
        assert read_results(killed).hypotheses == [EIGHT.text, ""]
    with begin(killed, REQUEST, CONTENTS, resume=True) as (writer, finished):
        assert finished
        assert not writer.progress
    assert contents(killed) == contents(folder)
    assert read_results(killed).hypotheses == [EIGHT.text, ""]


def test_a_list_is_a_file_of_its_own_and_lasts_as_the_others_do(tmp_path: Path):
    names = ("hypotheses.txt", "exits.jsonl", "nbest.txt")
    listed = dataclasses.replace(EIGHT, n_best=(EIGHT, EMPTY))
    asked = REQUEST | {"n_best": 2}

    def write_list(index: int, resume: bool) -> None:
        with ResultsWriter(tmp_path, asked, resume, names) as writer:
            writer.begin(CONTENTS)
            writer.add(*lines(listed), [formats.n_best_list(index, listed)])
            writer.keep({})
            writer.add(["half"], ["half"], ["half"])
            if not resume:
                raise KeyboardInterrupt
            writer.finish({})

    with pytest.raises(KeyboardInterrupt):
        write_list(0, resume=False)
    write_list(1, resume=True)
    written = contents(tmp_path)
    assert written.keys() == {*names, "summary.json"}
    of_both = [
        f"{index} ||| {text}" for index in (0, 1) for text in (f"{EIGHT.text} ||| -0.5", " ||| 0.0")
    ]
    assert written["nbest.txt"].split("\n") == [*of_both, "half", ""]
    assert json.loads(written["exits.jsonl"].split("\n")[0])["nbest"] == [
        {"tokens": ["▁acht", "</s>"], "exits": [1, 2], "score": -0.5},
        {"tokens": [], "exits": [], "score": 0.0},
    ]
    with pytest.raises(UserError, match="holds results with n_best = 2, not None"):
        write(tmp_path, REQUEST, EIGHT)
