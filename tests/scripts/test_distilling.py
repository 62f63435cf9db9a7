# SPDX-License-Identifier: Apache-2.0
"""Sequence distillation: a text folder whose targets are the teacher's translations."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import decode
from dat_jax import distill
from dat_jax.data import prepare
from dat_jax.data.sources.generated import GeneratedCorpus
from dat_jax.decoding import sizing
from dat_jax.decoding.sizing import Platform
from dat_jax.decoding.trained import TrainedModel
from dat_jax.evaluation.results import ResultsWriter
from tests.scripts.calls import TINY, call, files, refuse, succeed

pytestmark = pytest.mark.usefixtures("one_device")
PAIRS = {split: list(GeneratedCorpus(200, 0).pairs(split)) for split in ("train", "valid", "test")}


def read(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


@pytest.fixture
def distilled(trained: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    succeed(distill.main, f"--workdir={trained}", f"--output={folder}", "--beam_size=2")
    return folder


def test_targets_are_what_the_teacher_decodes(distilled: Path, trained: Path, tmp_path: Path):
    assert read(distilled / "train.src") == [source for source, _ in PAIRS["train"]]
    for split in ("valid", "test"):
        for number, side in enumerate(("src", "tgt")):
            expected = [pair[number] for pair in PAIRS[split]]
            assert read(distilled / f"{split}.{side}") == expected
    arguments = [f"--workdir={trained}", f"--config.input={distilled / 'train.src'}"]
    arguments += ["--config.beam_size=2", f"--config.output={tmp_path / 'decoded'}"]
    succeed(decode.main, *arguments)
    assert read(distilled / "train.tgt") == read(tmp_path / "decoded" / "hypotheses.txt")

    text = f"--config.data.source=text:{distilled}"
    sizes = ["--config.data.vocabulary_size=80", "--config.data.max_length=99"]
    made = succeed(prepare.main, *TINY, text, *sizes, f"--workdir={tmp_path / 'student'}")
    assert made.stdout.startswith("train: ")

    before = files(distilled)
    again = succeed(distill.main, f"--workdir={trained}", f"--output={distilled}", "--beam_size=2")
    assert "nothing is left to do" in again.stderr
    assert files(distilled) == before


def test_an_interrupted_distillation_resumes_after_its_last_window(
    trained: Path, tmp_path: Path, distilled: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, windows = tmp_path / "broken", list[int]()
    monkeypatch.setitem(sizing.PLATFORMS, "cpu", Platform(64, fewest_slots=8))
    keep = ResultsWriter.keep

    def keep_or_fail(self: ResultsWriter, *state: dict[str, Any]) -> None:
        windows.append(1)
        if len(windows) == 3:
            raise OSError(28, "No space left on device")
        keep(self, *state)

    monkeypatch.setattr(ResultsWriter, "keep", keep_or_fail)
    arguments = [f"--workdir={trained}", f"--output={folder}", "--beam_size=2"]
    result = call(distill.main, *arguments)
    assert result.status == 1
    error, note = result.stderr.strip().splitlines()
    assert error == "error: No space left on device: fix that and run again"
    assert note == f"{folder / 'translated'} keeps what was done: run the same again to resume"
    assert not (folder / "train.tgt").exists()
    succeed(distill.main, *arguments)
    assert read(folder / "train.tgt") == read(distilled / "train.tgt")
    assert len(windows) == 4  # two windows, the failed one, and that one again


def test_a_folder_of_another_request_is_refused(distilled: Path, trained: Path, tmp_path: Path):
    usual, before = [f"--workdir={trained}", "--beam_size=2"], files(distilled)
    refuse(
        f"--output={distilled} was begun with beam_size = 2, not 1: name another folder",
        distill.main,
        *[f"--workdir={trained}", "--beam_size=1", f"--output={distilled}"],
    )
    assert files(distilled) == before
    unfinished = tmp_path / "unfinished"  # as if killed before translating anything
    unfinished.mkdir()
    for name in ("request.json", "train.src", "valid.src", "valid.tgt", "test.src", "test.tgt"):
        shutil.copy(distilled / name, unfinished)
    refuse(
        "was begun with policy = ",
        distill.main,
        *usual,
        "--policy=fixed:1",
        f"--output={unfinished}",
    )
    own = tmp_path / "own"
    own.mkdir()
    (own / "valid.src").write_text("mine\n")
    refuse(
        f"--output={own} holds valid.src already: name an empty folder",
        distill.main,
        *[*usual, f"--output={own}"],
    )
    assert (own / "valid.src").read_text() == "mine\n"
    (unfinished / "request.json").write_text("[")
    refuse(
        "request.json is damaged: name another folder",
        distill.main,
        *usual,
        f"--output={unfinished}",
    )


def test_a_finished_folder_of_another_model_or_text_is_refused(
    distilled: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
):
    usual = [f"--workdir={trained}", "--beam_size=2", f"--output={distilled}"]
    before = files(distilled)
    with monkeypatch.context() as patch:
        patch.setattr(TrainedModel, "sha256", "another")
        refuse("was begun with another model than it is now", distill.main, *usual)
    with monkeypatch.context() as patch:
        patch.setattr(distill, "open_source", lambda _: GeneratedCorpus(200, 1))
        refuse("was begun with another text than it is now", distill.main, *usual)
    assert files(distilled) == before


def test_wrong_input_is_refused_in_one_line(trained: Path, tmp_path: Path):
    output = f"--output={tmp_path / 'text'}"
    refuse("train a model into this workdir first", distill.main, "--workdir=no", output)
    refuse("--output is missing", distill.main, f"--workdir={trained}")
    refuse("policy is 'fast'", distill.main, f"--workdir={trained}", output, "--policy=fast")
    assert not (tmp_path / "text").exists()
