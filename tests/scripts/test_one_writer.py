# SPDX-License-Identifier: Apache-2.0
"""A folder has one writer, and no results overwrite those of another input or other settings."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

import decode
import train
from dat_jax.data import prepare
from dat_jax.runs.workdir import Run
from dat_jax.storage.files import sole_writer
from dat_jax.tuning import __main__ as tuning
from tests.scripts.calls import TINY, Main, files, refuse, succeed


@pytest.fixture(scope="module")
def workdir(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained workdir, since other tests expect that one to have no results."""
    return Path(shutil.copytree(trained, tmp_path_factory.mktemp("folders") / "run"))


def test_inputs_with_the_same_name_have_separate_results(workdir: Path, tmp_path: Path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "text").write_text("acht\n")
    (tmp_path / "link").symlink_to("a")

    def folder(run: Path, *place: str) -> Path:
        text = tmp_path.joinpath(*place, "text")
        given = [f"--workdir={run}", "--config.policy=fixed:1", f"--config.input={text}"]
        return Path(succeed(decode.main, *given).stderr.removeprefix("wrote ").split(",")[0]).parent

    first, second = folder(workdir, "a"), folder(workdir, "b")
    assert first != second
    for found in (first, second):
        assert re.fullmatch(r"text-[0-9a-f]{8}-fixed-1-beam1", found.name)
    assert folder(workdir, "b", "..", "link") == first
    request = json.loads((first / "summary.json").read_text())["request"]
    assert request["input"] == str(tmp_path.resolve() / "a" / "text")
    assert (request["policy"], request["reference"], request["split"]) == ("fixed:1", "", "")
    moved = workdir.rename(workdir.with_name("moved"))
    assert folder(moved, "a").name == first.name
    moved.rename(workdir)


def test_folder_names_list_non_default_settings(workdir: Path):
    run = Run(workdir)
    usual = run.config.decoding
    unusual = dataclasses.replace(
        usual, policy="confidence:0.5", beam_size=3, length_penalty=0.5, average_checkpoints=1
    )
    assert run.decoded("test", usual).name == "test-fixed-beam1"
    assert run.decoded("test", unusual).name == (
        "test-confidence-0.5-beam3-length_penalty=0.5-average_checkpoints=1"
    )


@pytest.mark.parametrize("other", ["--config.beam_size=2", f"--config.input={__file__}"])
def test_a_folder_with_other_results_is_refused_before_any_work(
    trained: Path, tmp_path: Path, other: str, monkeypatch: pytest.MonkeyPatch
):
    text, results = tmp_path / "text", tmp_path / "results"
    text.write_text("acht\n")
    given = [f"--workdir={trained}", "--config.policy=fixed:1", f"--config.input={text}"]
    given.append(f"--config.output={results}")
    for _ in range(2):
        succeed(decode.main, *given)
    before = files(results)
    monkeypatch.setattr("dat_jax.runs.workdir.Run.load", None)
    key = other.removeprefix("--config.").split("=")[0]
    refuse(f"holds results with {key} = ", decode.main, *given, other)
    assert files(results) == before


def test_a_folder_being_written_is_refused_before_any_work(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dat_jax.runs.workdir.Run.load", None)
    given = [f"--workdir={workdir}", "--config.policy=fixed:1"]
    usual = workdir / "decode" / "test-fixed-1-beam1"
    with sole_writer(tmp_path), sole_writer(usual):
        for output in ([], [f"--config.output={tmp_path}"]):
            refuse("is being written by process", decode.main, *given, *output)
    assert not usual.exists()


@pytest.mark.parametrize("main", [train.main, prepare.main, tuning.main])
def test_a_workdir_being_written_is_refused_before_any_work(
    workdir: Path, main: Main, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dat_jax.runs.workdir.Run.load", None)
    given = ["--policy=confidence"] if main is tuning.main else [*TINY, "--config.training.steps=4"]
    with sole_writer(workdir):
        before = files(workdir)
        refuse("is being written by process", main, f"--workdir={workdir}", *given)
        assert files(workdir) == before


def test_decoding_works_while_the_workdir_is_being_written(workdir: Path, tmp_path: Path):
    given = [f"--workdir={workdir}", "--config.policy=fixed:1", "--config.input=-"]
    with sole_writer(workdir):
        output = f"--config.output={tmp_path / 'results'}"
        succeed(decode.main, *given, output, text="acht\n")
