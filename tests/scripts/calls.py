# SPDX-License-Identifier: Apache-2.0
"""Calls the scripts, in this process or in a separate one, and returns what they printed."""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from absl import logging as absl_logging

REPOSITORY = Path(__file__).resolve().parent.parent.parent

TINY = [
    "--config=configs/demo.py",
    "--config.data.source=generated:200",
    "--config.data.vocabulary_size=150",
    "--config.data.max_length=16",
    "--config.decoding.max_source_length=16",  # one room, so one program
    "--config.model.decoder_layers=2",
    "--config.model.encoder_layers=1",
    "--config.model.encoder_dim=8",
    "--config.model.decoder_dim=8",
    "--config.model.encoder_ff_dim=8",
    "--config.model.decoder_ff_dim=8",
    "--config.training.num_shapes=1",
    "--config.training.checkpoint_every=2",
    "--config.training.log_every=2",
    "--config.decoding.max_length_ratio=0.5",
    "--config.decoding.max_length_extra=4",
]

POLICIES = [
    "fixed:1",
    "fixed:2",
    "token_geometric:0.5",
    "tuned:token_geometric:AE<=3",
    "tuned:confidence:AE<=3",
]
"""The policies of the demo's report, here with two layers."""

PLAIN = "--config.decoding.report_policies=()"
"""Skips the report's tuning, for tests of other things."""

Main = Callable[[Sequence[str]], int]


class Finished(NamedTuple):
    """A script's exit status and output."""

    status: int
    stdout: str
    stderr: str


def call(main: Main, *arguments: str | Path, text: str = "") -> Finished:
    """Calls a script's `main` in the repository, on ASCII streams that it must make UTF-8."""
    output, errors = (io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2))
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape") as stdin,
        contextlib.chdir(REPOSITORY),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        # absl keeps the sys.stderr of its import.
        mock.patch.object(absl_logging.get_absl_handler().python_handler, "stream", errors),
        mock.patch.object(sys, "stdin", stdin),
        _ml_collections_may_load_modules(),
    ):
        stdin.write(text)
        stdin.seek(0)
        status = main([main.__module__, *map(str, arguments)])
    return Finished(status, *(_printed(stream) for stream in (output, errors)))


def run(script: str, *arguments: str | Path, text: str = "") -> Finished:
    """Runs a script in a separate process."""
    result = subprocess.run(
        [sys.executable, *script.split(), *map(str, arguments)],
        cwd=REPOSITORY,
        env=environment(),
        input=text.encode(errors="surrogateescape"),
        capture_output=True,
        check=False,
    )
    return Finished(result.returncode, result.stdout.decode(), result.stderr.decode())


def environment() -> dict[str, str]:
    """Environment variables of a separate process: the tests' devices and compilation cache."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "8",
        "JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONIOENCODING": "ascii",  # the script switches to UTF-8
    }


def succeed(main: Main, *arguments: str | Path, text: str = "") -> Finished:
    """Calls a script that must succeed."""
    finished = call(main, *arguments, text=text)
    assert finished.status == 0, finished.stderr
    return finished


def refuse(message: str, main: Main, *arguments: str | Path, printed: str = "") -> None:
    """Calls a script that must fail with one line that contains `message`."""
    check_refusal(call(main, *arguments), message, printed)


def check_refusal(finished: Finished, message: str, printed: str = "") -> None:
    """Asserts a failure with one line of errors that contains `message`, after output `printed`."""
    assert finished.stdout.startswith(printed)
    assert finished.status not in (0, None)
    lines = finished.stderr.strip().splitlines()
    assert len(lines) == 1, finished.stderr
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def files(folder: Path) -> dict[Path, int]:
    """The modification times of the files below a folder."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def _printed(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


@contextlib.contextmanager
def _ml_collections_may_load_modules() -> Iterator[None]:
    """Lets ml_collections load a config by a deprecated method, as if it were the first one."""
    sys.modules.pop("config_config", None)  # otherwise it reuses the module of the last config
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"the load_module\(\) method", DeprecationWarning)
        yield
