# SPDX-License-Identifier: Apache-2.0
"""The scripts as a user runs them, each in a separate process."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.calls import REPOSITORY, TINY, check_refusal, files, run

PREPARE, TUNING = "-m dat_jax.data.prepare", "-m dat_jax.tuning"


@pytest.mark.parametrize(
    "script, arguments, message",
    [
        ("train.py", [*TINY, "--workdir=no", "--config.training.steps=0"], "steps is 0: must be 1"),
        ("decode.py", ["--workdir=no", "--config.beam_sze=2"], "did you mean beam_size?"),
        (TUNING, ["--workdir=no", "--policy=confidence"], "train a model into this workdir first"),
        (PREPARE, [*TINY, "--workdir=README.md"], "README.md"),
    ],
)
def test_a_refusal_is_one_line_and_a_nonzero_status(
    script: str, arguments: list[str], message: str
):
    check_refusal(run(script, *arguments), message)
    assert not (REPOSITORY / "no").exists()


def test_standard_streams_are_utf8(trained: Path, tmp_path: Path):
    arguments = [f"--workdir={trained}", "--config.input=-", f"--config.output={tmp_path}"]
    result = run("decode.py", *arguments, text="am dreiundzwanzigsten November\n\nsieben\n")
    assert result.status == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert lines[1] == ""
    assert "wrote" in result.stderr
    before = files(tmp_path)
    broken = run("decode.py", *arguments, text="sieben\n\udcff\n")
    assert broken.status == 1
    assert "not UTF-8 at line 2" in broken.stderr
    assert "Traceback" not in broken.stderr
    assert files(tmp_path) == before


def test_the_reader_of_the_output_may_leave_early(trained: Path):
    command = f"{sys.executable} decode.py --workdir={trained} --config.input=- | head -n 1"
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=REPOSITORY,
        input="acht\n\n" + "\n" * 200_000,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in result.stderr
    assert len(result.stdout.splitlines()) == 1
