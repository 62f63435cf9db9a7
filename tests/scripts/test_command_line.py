# SPDX-License-Identifier: Apache-2.0
"""The command line of all scripts: help, exit status, and no state shared between calls."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from absl import flags

import decode
import train
from benchmarks import batching, gpu
from benchmarks.decode import __main__ as speed
from benchmarks.report import __main__ as report
from benchmarks.reproduce import __main__ as reproduce
from dat_jax.cli.command_line import run
from dat_jax.data import prepare
from dat_jax.errors import Stopped, UserError
from dat_jax.tuning import __main__ as tuning
from tests.scripts.calls import REPOSITORY, TINY, Main, call, check_refusal, refuse, succeed

SCRIPTS = [
    *(train.main, decode.main, tuning.main, prepare.main),
    *(batching.main, speed.main, gpu.main, report.main, reproduce.main),
]

WITH_OUTPUT = (speed.main, gpu.main, report.main, reproduce.main)


@pytest.mark.parametrize("main", SCRIPTS, ids=lambda main: main.__module__)
@pytest.mark.parametrize("option", ["--help", "--helpfull"])
def test_help_prints_the_docstring_and_the_flags(main: Main, option: str):
    text = succeed(main, option).stdout
    assert text.startswith(sys.modules[main.__module__].__doc__ or "no docstring")
    assert ("--output" if main in WITH_OUTPUT else "--workdir") in text


def test_calls_share_no_flags():
    for _ in range(2):
        steps = [*TINY, "--workdir=no", "--config.training.steps=0"]
        refuse("training.steps is 0", train.main, *steps)
        beam = ["--workdir=no", "--config.beam_sze=2"]
        refuse("unknown config key beam_sze: did you mean beam_size?", decode.main, *beam)
        refuse("--policy is missing", tuning.main, "--workdir=no")
        for main in (train.main, prepare.main):
            refuse("--workdir is missing", main, "--config=configs/demo.py")
        for main in (decode.main, tuning.main, batching.main):
            refuse("--workdir is missing", main)


@pytest.mark.parametrize("script", [train, decode, tuning], ids=lambda script: script.__name__)
def test_scripts_that_compile_use_the_program_cache(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(script, "keep_programs", failing(UserError("called")))
    others = {train: TINY, tuning: ["--policy=confidence"]}
    refuse("called", script.main, *others.get(script, []), "--workdir=no")


@pytest.mark.parametrize("main", [train.main, decode.main, tuning.main, prepare.main])
def test_a_remote_workdir_is_refused(main: Main):
    others = {train.main: TINY, prepare.main: TINY, tuning.main: ["--policy=confidence"]}
    message = "gs://bucket/run is not a path on this machine: give a local path; only training"
    refuse(message, main, *others.get(main, []), "--workdir=gs://bucket/run")


def scripted(body: Callable[[], None]) -> Main:
    """The main of a script without flags."""

    def main(argv: Sequence[str]) -> int:
        return run(argv, flags.FlagValues(), body)

    return main


def failing(error: BaseException) -> Callable[[], None]:
    """The body of a script that raises `error`."""

    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    "error, message",
    [
        (UserError("no such thing: name another"), "error: no such thing: name another"),
        (OSError(13, "Permission denied", "a/file"), "error: a/file: Permission denied: fix that"),
        (OSError(28, "No space left on device"), "error: No space left on device: fix that and"),
        (OSError(2, "No such file", os.fsdecode(b"t\xffxt")), r"error: t\udcffxt: No such file"),
        (KeyboardInterrupt(), "error: interrupted"),
    ],
)
def test_an_error_that_the_user_can_fix_is_one_line(error: BaseException, message: str):
    check_refusal(call(scripted(failing(error))), message)


def test_a_dangling_link_is_named_with_its_target(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path / "no" / "where")
    made = scripted(lambda: (tmp_path / "link").mkdir(exist_ok=True))
    where = f"{tmp_path / 'link'}: it is a link to {tmp_path}/no/where, which is missing: fix"
    check_refusal(call(made), where)


def test_a_stopped_script_prints_its_message_and_returns_its_status():
    stopped = call(scripted(failing(Stopped("saved: run it again", 0))))
    assert (stopped.status, stopped.stderr) == (0, "saved: run it again\n")
    assert call(scripted(failing(KeyboardInterrupt()))).status == 130


@pytest.mark.parametrize("override", [[], ["--config.data.seed=1"]])
@pytest.mark.parametrize("form", ["--config=", "-config=", "--config "])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\nraise RuntimeError('out of order')", "line 2: RuntimeError: out of order: fix"),
        ("def get_config():\n    return {}['key']", "line 2: KeyError: key: fix the config"),
        ("def get_config(:", "line 1: SyntaxError: invalid syntax: fix the config"),
        ("x = 1\nexec('def get_config(:')", "line 2: SyntaxError: invalid syntax: fix the config"),
        ("x = 1", "has no function get_config: define it"),
        ("x = 1\ndef get_config():\n    int('five')", "line 3: ValueError: invalid literal"),
        ("def get_config():\n    open('no such file')", "line 2: FileNotFoundError: [Errno 2] No"),
        ("def get_config(size):\n    return size", "TypeError: get_config() missing 1 required"),
        ("def get_config():\n    pass", "get_config returns None: must be a ConfigDict"),
        ("def get_config():\n    return 3", "get_config returns 3: must be a ConfigDict"),
    ],
)
def test_a_broken_config_file_is_named_with_its_line(
    tmp_path: Path, source: str, message: str, override: list[str], form: str
):
    file = tmp_path / "mine.py"
    file.write_text(source)
    named = f"{form}{file}".split()
    refuse(message, train.main, *named, f"--workdir={tmp_path / 'run'}", *override)
    refuse(str(file), train.main, *named, f"--workdir={tmp_path / 'run'}", *override)
    assert "Traceback" not in call(train.main, *named, "--workdir=no", *override).stderr
    assert list(tmp_path.glob("run*")) == []


def test_a_missing_config_file_is_named(tmp_path: Path):
    for named in (["--config=no.py"], ["--config", "no.py"]):
        message = "--config=no.py cannot be read: give a Python file of configs/"
        refuse(message, train.main, *named, f"--workdir={tmp_path / 'run'}")


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError("no file is known")])
def test_other_exceptions_propagate(error: Exception):
    with pytest.raises(type(error), match=str(error)):
        call(scripted(failing(error)))


def test_file_names_that_are_not_utf8_can_be_printed():
    text = succeed(scripted(lambda: print(os.fsdecode(b"t\xffxt")))).stdout
    assert text == "t\\udcffxt\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("raising", ["", "raise dat_jax.UserError('no such thing')"])
def test_output_to_a_full_disk_is_one_line(raising: str):
    program = f"""
import sys
import dat_jax
from absl import flags
from dat_jax.cli.command_line import run
def body():
    print("a short line that stays in the buffer")
    {raising}
sys.exit(run([""], flags.FlagValues(), body))
"""
    command = [sys.executable, "-c", program]
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    for stderr in (subprocess.PIPE, None):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                command,
                cwd=REPOSITORY,
                env=buffered,
                stdout=full,
                stderr=stderr or full,
                check=False,
            )
        assert done.returncode == 1
        if stderr:
            cause = "no such thing" if raising else "No space left on device: fix that"
            assert done.stderr.decode().startswith(f"error: {cause}")
            assert len(done.stderr.splitlines()) == 1
