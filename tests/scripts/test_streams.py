# SPDX-License-Identifier: Apache-2.0
"""Standard streams that are closed, or whose reader has left, do not end other work."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dat_jax
import decode
import train
from tests.scripts.calls import PLAIN, REPOSITORY, TINY, call

PROGRAM = """
import os, sys
from absl import flags, logging
from dat_jax.cli import streams
from dat_jax.cli.command_line import run

def body():
    with open(sys.argv[1], "w") as file:
        for _ in range(3):
            {prints}
            print("told", file=sys.stderr)
            logging.warning("warned")
            os.write(1, b"by a library")
            os.write(2, b"by a library")
        file.write(f"done, {{sys.stdout.isatty() or sys.stderr.isatty()}}")

sys.exit(run([""], flags.FlagValues(), body))
"""


def run_program(
    folder: Path, streams: str, prints: str = "print('said', flush=True)"
) -> tuple[int, str]:
    """Runs a program with the shell's redirections; returns its status and the file it wrote."""
    shell = f'"$@" {streams}'
    command = [sys.executable, "-c", PROGRAM.format(prints=prints), str(folder / "file")]
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell}", "bash", *command], cwd=REPOSITORY, check=False
    )
    return done.returncode, (folder / "file").read_text()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_work_finishes_with_closed_streams(tmp_path: Path, closed: str):
    assert run_program(tmp_path, closed) == (0, "done, False")


@pytest.mark.parametrize("streams", ["| true", "2>&1 >/dev/null | true", "2>&1 | true"])
def test_work_finishes_after_its_reader_has_left(tmp_path: Path, streams: str):
    waits = "__import__('time').sleep(0.1); print('said', flush=True)"
    assert run_program(tmp_path, streams, waits) == (0, "done, False")


def test_work_for_a_reader_only_fails_once_the_reader_has_left(tmp_path: Path):
    delivers = "__import__('time').sleep(0.1); streams.deliver('said')"
    (tmp_path / "error").touch()
    status, written = run_program(tmp_path, f"2>{tmp_path}/error | true", delivers)
    assert (status, written) == (141, "")
    assert "Traceback" not in (tmp_path / "error").read_text()


@contextlib.contextmanager
def left() -> Iterator[None]:
    """Redirects standard output to a pipe whose reader has left."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe, contextlib.redirect_stdout(pipe):
        yield
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


def decode_lines(trained: Path, *arguments: str) -> int:
    given = [f"--workdir={trained}", "--config.policy=fixed:1", "--config.input=-", *arguments]
    return call(lambda argv: inside(lambda: decode.main(argv)), *given, text="acht\n").status


def inside(work):
    with left():
        return work()


def test_decoding_ends_with_its_reader_unless_it_keeps_results(trained: Path, tmp_path: Path):
    assert decode_lines(trained) == 141
    assert decode_lines(trained, f"--config.output={tmp_path / 'kept'}") == 0
    assert (tmp_path / "kept" / "summary.json").exists()


def test_decoding_to_a_closed_output_is_refused(trained: Path, monkeypatch: pytest.MonkeyPatch):
    given = [f"--workdir={trained}", "--config.input=-"]

    def closed(argv):
        with contextlib.redirect_stdout(None):
            return decode.main(argv)

    refused = call(closed, *given, text="acht\n")
    assert refused.status == 1
    assert refused.stderr == (
        "error: standard output is closed: set --config.output to a folder for the translations\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("stream_state", ["closed", "left"])
def test_training_continues_without_a_reader(tmp_path: Path, stream_state: str):
    def alone(argv):
        with contextlib.ExitStack() as stack:
            if stream_state == "left":
                stack.enter_context(left())
            else:
                stack.enter_context(contextlib.redirect_stdout(None))
                stack.enter_context(contextlib.redirect_stderr(None))
            return train.main(argv)

    steps = ["--config.training.steps=2", f"--workdir={tmp_path}"]
    assert call(alone, *TINY, PLAIN, *steps).status == 0
    assert (tmp_path / "evaluation.jsonl").exists()


def test_the_library_needs_no_streams(trained: Path):
    with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
        (translation,) = dat_jax.load(trained).translate(["acht"], policy="fixed:1")
    assert translation.pieces
