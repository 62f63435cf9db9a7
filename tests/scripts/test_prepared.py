# SPDX-License-Identifier: Apache-2.0
"""train.py on the data of another workdir, and the split that it reports."""

import json
import re
import shutil
from pathlib import Path

import pytest

import decode
import train
from dat_jax import info
from dat_jax.data import prepare
from dat_jax.evaluation.evaluate import evaluate
from dat_jax.exits.parsing import parse_policy
from dat_jax.runs.workdir import Run
from tests.scripts.calls import PLAIN, TINY, Finished, call, files, refuse, succeed


@pytest.fixture(scope="module")
def reused(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Finished]:
    """A copy of the trained workdir, one that was trained on its data, and what that printed."""
    folder = tmp_path_factory.mktemp("reused")
    other = Path(shutil.copytree(trained, folder / "other"))
    before = files(other)
    workdir, valid = folder / "run", "--config.decoding.report_split=valid"
    arguments = [f"--workdir={workdir}", f"--config.data.prepared={other}", valid]
    found = succeed(train.main, *TINY, PLAIN, *arguments, "--config.training.steps=4")
    assert files(other) == before
    return other, workdir, found


def lines(path: Path) -> list[dict]:
    return list(map(json.loads, path.read_text().splitlines()))


def test_losses_are_those_of_a_run_that_prepares_its_data(reused: tuple[Path, Path, Finished]):
    other, workdir, _ = reused
    assert not (workdir / "data").exists()
    mine, theirs = (
        [
            {key: value for key, value in line.items() if "loss" in key or "nll" in key}
            for line in lines(path / "metrics.jsonl")
        ]
        for path in (workdir, other)
    )
    assert mine == theirs
    assert len(mine) == 3


def test_the_report_evaluates_the_split_that_it_is_told(
    reused: tuple[Path, Path, Finished],
):
    """The demo says test; see tests/scripts/test_training.py."""
    _, workdir, found = reused
    assert "\nvalid, beam 1, step 4\n" in found.stdout
    assert re.search(rf"^source +{Run(workdir).text('valid')[0][0]}$", found.stdout, re.MULTILINE)
    run, (first, *_) = Run(workdir), lines(workdir / "evaluation.jsonl")
    policy = parse_policy("fixed:1", run.config.model)
    _, expected = evaluate(run.load(), run.dataset(), policy, run.config.decoding, "valid")
    assert first["split"] == "valid"
    assert [first[x] for x in ("chrf", "tokens")] == [expected[x] for x in ("chrf", "tokens")]
    described = succeed(info.main, f"--workdir={workdir}").stdout
    assert "last scores:\n  valid, of the checkpoint at step 4\n" in described
    assert f"  prepared in {reused[0]}\n" in described


def test_a_run_translates_without_the_workdir_of_its_data(
    reused: tuple[Path, Path, Finished], tmp_path: Path
):
    other, workdir, _ = reused
    moved = other.rename(tmp_path / "moved")
    try:
        arguments = [f"--workdir={workdir}", "--config.beam_size=1", "--config.policy=fixed:1"]
        told = call(decode.main, *arguments, "--config.input=-", text="acht Uhr\n")
        assert (told.status, told.stdout.count("\n")) == (0, 1)
        missing = f"{other / 'data' / 'test.src'} is missing: restore it"
        refuse(missing, decode.main, *arguments)
    finally:
        moved.rename(other)


def test_bad_starts_are_refused_in_one_line(tmp_path: Path):
    for split in ("train", "valid"):
        for language in ("de", "en"):
            text = "".join(f"{word} {language}\n" for word in ("ja", "nun", "acht") * 9)
            (tmp_path / f"{split}.{language}").write_text(text, encoding="utf-8")
    arguments = [*TINY, f"--config.data.source=text:{tmp_path}", f"--workdir={tmp_path / 'run'}"]
    arguments.append("--config.data.vocabulary_size=19")
    message = "decoding.report_split is test, which the text of data.source does not have: set"
    refuse(message, train.main, *arguments)
    missing = "--config.data.prepared=no/run"
    refuse("data.prepared is no/run, which holds no finished data", train.main, *TINY,
           f"--workdir={tmp_path / 'run'}", missing)  # fmt: skip
    wrong = "--config.decoding.report_split=train"
    refuse("report_split is 'train': must be one of valid, test", train.main, *arguments, wrong)
    file = "--config.data.source_vocabulary=no.model"
    message = "data.source_vocabulary is"
    refuse(message, train.main, *TINY, f"--workdir={tmp_path / 'run'}", file)
    assert not (tmp_path / "run").exists()
    printed = succeed(prepare.main, *arguments).stdout
    assert [line.split(":")[0] for line in printed.splitlines()] == ["train", "valid"]
