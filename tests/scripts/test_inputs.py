# SPDX-License-Identifier: Apache-2.0
"""decode.py reads files and pipes by any name, and answers a pipe line by line."""

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import decode
from dat_jax.data import prepare
from tests.scripts.calls import REPOSITORY, TINY, environment, refuse, succeed
from tests.several import PATIENCE


@contextlib.contextmanager
def piped(text: str) -> Iterator[str]:
    """The path of a pipe with this text, like the shell's `<(...)`."""
    reading, writing = os.pipe()
    with open(writing, "w", encoding="utf-8") as file:
        file.write(text)
    yield f"/dev/fd/{reading}"
    os.close(reading)


def test_pipes_are_translated_and_scored(trained: Path, tmp_path: Path):
    given = [f"--workdir={trained}", "--config.policy=fixed:1"]
    results, nothing = tmp_path / "results", tmp_path / "nothing"
    with piped("acht\n\nsieben\n") as text, piped("eight\n\nseven\n") as reference:
        pipes = [f"--config.input={text}", f"--config.reference={reference}"]
        succeed(decode.main, *given, *pipes, f"--config.output={results}")
    assert len((results / "hypotheses.txt").read_text().splitlines()) == 3
    summary = json.loads((results / "summary.json").read_text())
    assert summary["sentences"] == 3
    assert "bleu" in summary
    given.append(f"--config.output={nothing}")
    with piped("acht\nsieben\n") as text, piped("eight\n") as reference:
        pipes = [f"--config.input={text}", f"--config.reference={reference}"]
        refuse("2 sentences but 1 references", decode.main, *given, *pipes)
    for name in ("input", "reference"):
        with piped("") as text, piped("acht\n") as other:
            pipes = {"input": other, "reference": other} | {name: text}
            pipes = [f"--config.{key}={value}" for key, value in pipes.items()]
            refuse(f"{text} is empty", decode.main, *given, *pipes)
    with piped("") as text:
        refuse(f"{text} is empty", decode.main, *given, f"--config.input={text}")
    assert not nothing.exists()


def test_a_pipe_prints_like_standard_input(trained: Path, tmp_path: Path):
    """A pipe's name changes each time, so a results folder named after it would be useless."""
    workdir = Path(shutil.copytree(trained, tmp_path / "run"))
    given = [f"--workdir={workdir}", "--config.policy=fixed:1"]
    expected = succeed(decode.main, *given, "--config.input=-", text="acht\nsieben\n").stdout
    assert expected.count("\n") == 2
    with piped("acht\nsieben\n") as text:
        assert succeed(decode.main, *given, f"--config.input={text}").stdout == expected
    with piped("acht\nsieben\n") as text, piped("eight\nseven\n") as reference:
        pipes = [f"--config.input={text}", f"--config.reference={reference}"]
        printed = succeed(decode.main, *given, *pipes)
    assert printed.stdout == expected
    assert "| BLEU |" in printed.stderr
    assert not (workdir / "decode").exists()


def test_a_line_is_answered_before_the_next_arrives(trained: Path):
    command = [sys.executable, "decode.py", f"--workdir={trained}", "--config.input=-"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def answer(text: bytes) -> bytes:
            process.stdin.write(text)
            process.stdin.flush()
            found, deadline = b"", time.monotonic() + PATIENCE
            while found.count(b"\n") < text.count(b"\n"):
                waiting = max(0.0, deadline - time.monotonic())
                if not select.select([process.stdout], [], [], waiting)[0]:
                    process.kill()
                    pytest.fail(f"no answer within {PATIENCE} seconds")
                found += os.read(process.stdout.fileno(), 1 << 16)
            return found

        first = answer(b"acht\n")
        assert answer(b"sieben\n") != b"\n"
        assert answer(b"acht\n") == first
        process.stdin.close()
        assert process.wait() == 0


def test_a_file_name_that_is_not_utf8_works(trained: Path, tmp_path: Path):
    workdir = Path(shutil.copytree(trained, tmp_path / "run"))
    text = tmp_path / os.fsdecode(b"t\xffxt")
    text.write_text("acht\n")
    given = [f"--workdir={workdir}", "--config.policy=fixed:1", f"--config.input={text}"]
    assert "t\\udcffxt-" in succeed(decode.main, *given).stderr
    (results,) = (workdir / "decode").iterdir()
    request = json.loads((results / "summary.json").read_text())["request"]
    assert request["input"] == os.path.realpath(text)
    succeed(decode.main, *given)
    text.unlink()
    refuse(r"t\udcffxt: No such file", decode.main, *given)


def test_every_path_may_start_with_a_tilde(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "trained").symlink_to(trained)
    for name in ("text", "reference"):
        (tmp_path / name).write_text("acht\n")
    shutil.copy(REPOSITORY / "configs" / "decode.py", tmp_path / "settings.py")
    paths = ["--workdir=~/trained", "--config=~/settings.py", "--config.output=~/results"]
    paths += ["--config.input=~/text", "--config.reference=~/reference"]
    succeed(decode.main, *paths, "--config.policy=fixed:1")
    assert (tmp_path / "results" / "summary.json").exists()
    succeed(prepare.main, *TINY, "--workdir=~/run")
    assert (tmp_path / "run" / "data").exists()
    assert not (REPOSITORY / "~").exists()
