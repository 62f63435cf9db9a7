# SPDX-License-Identifier: Apache-2.0
"""Files of results: their lines are found again, and other files are refused."""

import json
from pathlib import Path

import pytest

from benchmarks.results import Lines, read_lines
from dat_jax.errors import UserError

FIRST, SECOND = ({"suite": "small", "number": n, "score": 0.5 * n} for n in (1, 2))


def test_lines_are_written_at_once_and_found_again(tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    lines = Lines(path, "small", ("number",))
    lines.add(FIRST)
    assert read_lines(path) == [FIRST]
    again = Lines(path, "small", ("number",))
    assert (len(again), again.find(number=1), again.find(number=2)) == (1, FIRST, None)
    again.add(SECOND)
    assert read_lines(path) == [FIRST, SECOND]


def test_an_interrupted_line_is_dropped_and_written_again(tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps(FIRST) + "\n" + json.dumps(SECOND)[:10])
    lines = Lines(path, "small", ("number",))
    assert lines.find(number=2) is None
    lines.add(SECOND)
    assert read_lines(path) == [FIRST, SECOND]


def test_a_line_that_lacks_only_its_newline_is_kept(tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps(FIRST))
    Lines(path, "small", ("number",)).add(SECOND)
    assert read_lines(path) == [FIRST, SECOND]


@pytest.mark.parametrize(
    "text",
    [
        b"no JSON\n",
        b"no JSON",
        b'{"suite": "other"}\n',
        b'{"suite": "other"}',
        b'{"suite": "other"}\n{"suite": "other", "n":',
        b'{"policy": "fixed:1"}\n',
        b"5\n",
        b"\xff\xfe\n",
    ],
)
def test_other_files_are_refused_and_left_alone(tmp_path: Path, text: bytes):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(text)
    with pytest.raises(UserError, match=r"name another (--output|file)"):
        Lines(path, "small", ("number",))
    assert path.read_bytes() == text


def test_a_missing_folder_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="none is not a folder"):
        Lines(tmp_path / "none" / "lines.jsonl", "small", ())
