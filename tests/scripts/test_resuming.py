# SPDX-License-Identifier: Apache-2.0
"""An interrupted decode resumes after its last complete window, with identical results."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import decode
from dat_jax.decoding import lines as decoding_lines
from dat_jax.decoding import sizing
from dat_jax.decoding.search import search
from dat_jax.decoding.sizing import Platform
from dat_jax.decoding.trained import TrainedModel
from dat_jax.evaluation.results import ResultsWriter
from tests.scripts.calls import REPOSITORY, call, check_refusal, environment, refuse, succeed
from tests.storage.test_files import size_limit

SMALL = Platform(window=8, fewest_slots=8)
LINES = [f"{word} Uhr" for word in ("acht", "sieben", "um halb zwei", "neun", "elf")] * 7
LINES[11] = ""
TIMES = {"seconds", "seconds_compiling", "tokens_per_second"}


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sizing.PLATFORMS, "cpu", SMALL)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_text("".join(line + "\n" for line in LINES))
    shutil.copy(path, path.with_name("reference"))
    return path


def options(trained: Path, text: Path, policy: str) -> list[str]:
    """Options of a decode; with a random policy, hypotheses depend on the sentence number."""
    return [
        f"--workdir={trained}",
        f"--config.policy={policy}",
        "--config.beam_size=1",
        f"--config.input={text}",
        f"--config.reference={text.with_name('reference')}",
    ]


def interrupt(monkeypatch: pytest.MonkeyPatch, windows: int, error: BaseException) -> None:
    """Makes the next decode raise `error` while it writes the results after `windows` windows."""
    add, count = ResultsWriter.add, iter(range(100))

    def adds(self: ResultsWriter, *lines: Any) -> None:
        add(self, *lines)
        if next(count) == windows:
            raise error

    monkeypatch.setattr(ResultsWriter, "add", adds)


def results(folder: Path) -> tuple[bytes, bytes, dict[str, Any]]:
    assert {path.name for path in folder.iterdir()} == {
        "hypotheses.txt",
        "exits.jsonl",
        "summary.json",
    }
    summary = json.loads((folder / "summary.json").read_text())
    assert summary.keys() >= TIMES
    kept = {key: value for key, value in summary.items() if key not in TIMES | {"request"}}
    return (folder / "hypotheses.txt").read_bytes(), (folder / "exits.jsonl").read_bytes(), kept


# Tokens draw their exits by the number of their sentence.
@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("policy", ["confidence:1", "uniform:3"])
def test_an_interrupted_decode_resumes(
    trained: Path,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    policy: str,
):
    asked = options(trained, text, policy)
    succeed(decode.main, *asked, f"--config.output={tmp_path / 'whole'}")
    folder = tmp_path / "parts"
    resume = [*asked, f"--config.output={folder}", "--config.resume=true"]
    windows = []
    monkeypatch.setattr(
        "dat_jax.decoding.translator.search",
        lambda *args, **options: windows.append(len(args[2])) or search(*args, **options),
    )
    for done in (2, 1):
        with monkeypatch.context() as patch:
            interrupt(patch, done, KeyboardInterrupt())
            stopped = call(decode.main, *resume)
        assert stopped.status == 130
        assert stopped.stderr.splitlines() == [
            "error: interrupted",
            f"{folder} keeps what was done: run the same again to resume",
        ]
    succeed(decode.main, *resume)
    # Only the incomplete window is decoded again.
    assert windows == [8, 7, 8, 8, 8, 8, 3]
    assert results(folder) == results(tmp_path / "whole")
    finished = succeed(decode.main, *resume)
    assert finished.stderr == f"{folder} is finished: nothing is left to do\n"
    assert len(windows) == 7


@pytest.mark.usefixtures("one_device")
def test_unfinished_results_can_only_be_resumed(
    trained: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    moved = shutil.copytree(trained, tmp_path / "run")
    text = Path(shutil.copytree(text.parent, tmp_path / "text")) / "text"
    folder = moved / "decode" / "found"
    asked = [*options(moved, text, "fixed:2"), f"--config.output={folder}"]
    resume = [*asked, "--config.resume=true"]
    with monkeypatch.context() as patch, size_limit(1 << 20):
        interrupt(patch, 2, OSError(28, "No space left on device"))
        full = call(decode.main, *asked)
    assert full.status == 1
    assert full.stderr.splitlines()[0] == ("error: No space left on device: fix that and run again")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert {path.name for path in before} == {
        "hypotheses.txt.unfinished",
        "exits.jsonl.unfinished",
        "summary.json.unfinished",
        "progress.json",
    }
    refuse(
        "holds unfinished results: resume them with --config.resume=true, or give",
        decode.main,
        *asked,
    )
    another = [*options(moved, text, "fixed:1"), f"--config.output={folder}"]
    refuse(
        "holds unfinished results with policy = 'fixed:2', not 'fixed:1'",
        decode.main,
        *another,
        "--config.resume=true",
    )
    lines = text.read_text()
    text.write_text(lines.replace("acht", "zwei"))
    refused = call(decode.main, *resume)
    assert "--config.resume: the text has changed since the results were begun" in refused.stderr
    text.write_text(lines)
    with monkeypatch.context() as patch:
        patch.setattr(TrainedModel, "sha256", "another")
        assert "--config.resume: the model has changed" in call(decode.main, *resume).stderr
    assert set(folder.iterdir()) == before.keys()
    assert (folder / "progress.json").read_bytes() == before[folder / "progress.json"]
    succeed(decode.main, *resume)
    assert results(folder)[0].count(b"\n") == len(LINES)


@pytest.mark.usefixtures("one_device")
def test_a_decode_of_redirected_standard_input_resumes(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = "".join(f"{line}\n" for line in LINES)
    folder = tmp_path / "parts"
    asked = [*options(trained, Path("-"), "fixed:1")[:-1], f"--config.output={folder}"]
    with monkeypatch.context() as patch:
        interrupt(patch, 2, KeyboardInterrupt())
        assert call(decode.main, *asked, text=text).status == 130
    resume = [*asked, "--config.resume=true"]
    other = call(decode.main, *resume, text=text.replace("acht", "zwei"))
    assert "the text has changed since the results were begun" in other.stderr
    succeed(decode.main, *resume, text=text)
    assert results(folder)[0].count(b"\n") == len(LINES)


def test_input_that_can_be_read_only_once_cannot_be_resumed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = [f"--workdir={trained}", f"--config.output={tmp_path / 'out'}"]
    reading, writing = os.pipe()
    os.write(writing, b"acht Uhr\n")
    os.close(writing)
    monkeypatch.setattr(decoding_lines, "_standard_input", lambda: reading)
    for name, shown in {"-": "standard input", f"/dev/fd/{reading}": f"/dev/fd/{reading}"}.items():
        message = f"{shown} can be read only once: put the text into a file"
        again = [*asked, f"--config.input={name}", "--config.resume=true"]
        check_refusal(call(decode.main, *again), message)
    os.close(reading)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("renamed", [1, 2])
def test_a_decode_interrupted_between_its_last_renames_is_finished(
    trained: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: int
):
    folder, replace, places = tmp_path / "parts", os.replace, []
    asked = [*options(trained, text, "fixed:1"), f"--config.output={folder}"]

    def replace_or_interrupt(source: str, place: Path) -> None:
        places.extend([place] if place.suffix in (".txt", ".jsonl") else [])
        if place.name == "summary.json" or len(places) > renamed:
            raise KeyboardInterrupt
        replace(source, place)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_or_interrupt)
        assert call(decode.main, *asked).status == 130
    assert len(list(folder.glob("*.unfinished"))) == 3 - renamed
    finished = succeed(decode.main, *asked, "--config.resume=true")
    assert finished.stderr == f"{folder} is finished: nothing is left to do\n"
    assert results(folder)[0].count(b"\n") == len(LINES)


@pytest.mark.usefixtures("one_device")
def test_finished_results_of_changed_inputs_are_decoded_again(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The model, the text or its reference may have changed."""
    text, folder = tmp_path / "text", tmp_path / "found"
    asked = [*options(trained, text, "fixed:1"), f"--config.output={folder}"]
    asked.append("--config.resume=true")

    def is_decoded(file: Path, content: str) -> bool:
        file.write_text(content)
        done = succeed(decode.main, *asked)
        assert len(list(folder.iterdir())) == 3
        return "nothing is left to do" not in done.stderr

    reference = text.with_name("reference")
    reference.write_text("eight\n")
    assert is_decoded(text, "acht\n")
    assert not is_decoded(text, "acht\n")
    assert is_decoded(text, "neun\n")
    assert is_decoded(reference, "nine\n")
    with monkeypatch.context() as patch:
        patch.setattr(TrainedModel, "sha256", "another")
        assert is_decoded(text, "neun\n")
        assert not is_decoded(text, "neun\n")
    assert is_decoded(text, "neun\n")


PROGRAM = """
import sys
import decode
from dat_jax.decoding import sizing
from dat_jax.decoding.sizing import Platform

sizing.PLATFORMS["cpu"] = Platform(window=8, fewest_slots=8)
sys.exit(decode.main(["decode.py", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_a_killed_decode_resumes(trained: Path, text: Path, tmp_path: Path):
    many = tmp_path / "text"
    many.write_text(text.read_text() * 40)
    shutil.copy(many, many.with_name("reference"))
    asked = options(trained, many, "uniform:3")
    succeed(decode.main, *asked, f"--config.output={tmp_path / 'whole'}")
    folder = tmp_path / "parts"
    command = [sys.executable, "-c", PROGRAM, *asked, f"--config.output={folder}"]
    progress, kills = folder / "progress.json", 0
    for seconds in (0.0, 0.003, 0.02):
        before = progress.read_bytes() if progress.exists() else b""
        process = subprocess.Popen(
            [*command, "--config.resume=true"], cwd=REPOSITORY, env=environment()
        )
        while process.poll() is None and (not progress.exists() or progress.read_bytes() == before):
            time.sleep(0.001)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills == 3
    succeed(decode.main, *asked, f"--config.output={folder}", "--config.resume=true")
    assert results(folder) == results(tmp_path / "whole")
