# SPDX-License-Identifier: Apache-2.0
"""train.py, from text to a table of scores."""

import json
import shutil
from pathlib import Path

import pytest

import train
from dat_jax.data import prepare
from dat_jax.evaluation.evaluate import evaluate
from dat_jax.exits.parsing import parse_policy
from dat_jax.runs.workdir import Run
from tests.scripts.calls import PLAIN, POLICIES, TINY, files, refuse, run, succeed


def test_training_writes_the_documented_files(trained: Path):
    assert {path.name for path in trained.iterdir()} == {
        "config.json",
        "vocabulary",
        "data",
        "checkpoints",
        "checkpoints.json",
        "metrics.jsonl",
        "tensorboard",
        "tuned",
        "evaluation.jsonl",
    }
    metrics = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == [2, 4, 4]
    assert {"train/loss", "train/nll/exit_1", "train/nll/exit_2"} <= metrics[0].keys()
    assert "valid/nll/exit_2" in metrics[2]
    summaries = [
        json.loads(line) for line in (trained / "evaluation.jsonl").read_text().splitlines()
    ]
    assert [summary["policy"] for summary in summaries] == POLICIES
    assert [summary["average_exit"] for summary in summaries[:2]] == [1, 2]
    assert [len(summary["thresholds"] or []) for summary in summaries] == [0, 0, 1, 1, 1]


def test_the_report_evaluates_the_test_split(trained: Path):
    run = Run(trained)
    policy, decoding = parse_policy("fixed:1", run.config.model), run.config.decoding
    reported = json.loads((trained / "evaluation.jsonl").read_text().splitlines()[0])
    valid, test = (
        evaluate(run.load(), run.dataset(), policy, decoding, split)[1]
        for split in ("valid", "test")
    )
    assert reported["policy"] == "fixed:1"
    names = ("chrf", "tokens", "flops_per_token")
    assert [reported[name] for name in names] == [test[name] for name in names]
    assert [reported[name] for name in names] != [valid[name] for name in names]


@pytest.mark.slow
def test_a_failed_start_may_be_changed_and_a_stopped_run_resumes_exactly(
    trained: Path, tmp_path: Path
):
    arguments = [*TINY, PLAIN, f"--workdir={tmp_path}"]
    first, few = "--config.training.steps=2", "--config.training.batch_tokens=40"
    printed = "train: "
    refuse("training.batch_tokens is 40", train.main, *arguments, first, few, printed=printed)
    succeed(train.main, *arguments, first)
    resumed = run("train.py", *arguments, "--config.training.steps=4")
    assert resumed.status == 0, resumed.stderr
    assert "step 4 of 4" in resumed.stderr
    assert "step 2 of 4" not in resumed.stderr
    assert any(exit_mark in resumed.stdout for exit_mark in "₁₂")

    def losses(workdir: Path) -> list[float]:
        lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
        return [line["train/loss"] for line in lines if "train/loss" in line]

    assert losses(tmp_path) == losses(trained)


def test_a_workdir_with_another_run_is_not_touched(trained: Path):
    before = files(trained)
    arguments = [*TINY, f"--workdir={trained}"]
    refuse("model.decoder_ff_dim = 8", train.main, *arguments, "--config.model.decoder_ff_dim=16")
    refuse("data.seed = 0, not 1", train.main, *arguments, "--config.data.seed=1")
    refuse("training.batch_tokens", train.main, *arguments, "--config.training.batch_tokens=999")
    assert files(trained) == before


@pytest.mark.parametrize("gone", ["removed", "dangling"])
def test_a_workdir_with_missing_checkpoints_is_not_touched(
    trained: Path, tmp_path: Path, gone: str
):
    workdir = Path(shutil.copytree(trained, tmp_path / "run"))
    shutil.rmtree(workdir / "checkpoints")
    if gone == "dangling":
        (workdir / "checkpoints").symlink_to(tmp_path / "no")
    before, message = (
        files(workdir),
        {"removed": "is missing: restore it", "dangling": "a link to"},
    )
    arguments = [*TINY, PLAIN, f"--workdir={workdir}"]
    for other in ([], ["--config.model.decoder_ff_dim=16"]):
        refuse(message[gone], train.main, *arguments, "--config.training.steps=4", *other)
    shutil.rmtree(workdir / "data")
    refuse("is missing: restore it", prepare.main, *arguments)
    before = {path: time for path, time in before.items() if workdir / "data" not in path.parents}
    assert files(workdir) == before


def test_fewer_steps_than_already_trained_are_refused(trained: Path):
    arguments = [*TINY, f"--workdir={trained}", "--config.training.steps=3"]
    refuse("has been trained to step 4 and training.steps is 3", train.main, *arguments)


@pytest.mark.slow
def test_a_second_run_starts_from_the_parameters_of_the_first(trained: Path, tmp_path: Path):
    first = f"--config.training.initial_workdir={trained}"
    other = [*TINY, f"--workdir={tmp_path / 'other'}", first]
    wider = "--config.model.decoder_ff_dim=16"
    refuse("its model.decoder_ff_dim is 8", train.main, *other, wider)
    seed = "--config.data.seed=1"
    refuse("its vocabulary differs", train.main, *other, seed, printed="train")
    frozen = ["--config.exit.trains=head_alone", "--config.exit.start_step=0"]
    second = [f"--workdir={tmp_path / 'second'}", "--config.training.steps=2"]
    succeed(train.main, *TINY, PLAIN, *second, first, *frozen)

    def fixed_scores(workdir: Path) -> list[float]:
        lines = map(json.loads, (workdir / "evaluation.jsonl").read_text().splitlines())
        return [line["chrf"] for line in lines if line["policy"].startswith("fixed")]

    assert fixed_scores(tmp_path / "second") == fixed_scores(trained)
