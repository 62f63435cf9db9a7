# SPDX-License-Identifier: Apache-2.0
"""train.py, from text to a table of scores."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import jax
import pytest

import decode
import train
from dat_jax.data import prepare
from dat_jax.decoding import devices
from dat_jax.decoding.sizing import platform_of, room_for
from dat_jax.evaluation.evaluate import evaluate
from dat_jax.evaluation.validation_bleu import make_validation_bleu
from dat_jax.exits.parsing import parse_policy
from dat_jax.runs.workdir import Run, make_model
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


def test_thresholds_of_a_finished_run_are_not_tuned_again(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    monkeypatch.setattr(train, "tune", None)
    succeed(train.main, *TINY, f"--workdir={workdir}", "--config.training.steps=4")
    before, after = (Run(path).evaluation.read_text() for path in (trained, workdir))
    assert [json.loads(line)["bleu"] for line in after.splitlines()] == [
        json.loads(line)["bleu"] for line in before.splitlines()
    ]


def test_bleu_on_validation_sentences_is_that_of_decoding_and_changes_no_parameter(
    trained: Path, tmp_path: Path
):
    """The log shows two samples; training's other metrics stay as they were."""
    workdir, text = tmp_path / "run", tmp_path / "text"
    measuring = ["bleu_every=2", "bleu_sentences=12", "bleu_exits=(2,1)", "best_by=bleu"]
    options = [f"--config.training.{option}" for option in measuring]
    options += [PLAIN, "--config.training.steps=4", f"--workdir={workdir}"]
    finished = succeed(train.main, *TINY, *options)
    ours, theirs = Run(workdir), Run(trained)
    for step in (2, 4):
        sums = {run.load(checkpoint=step).sha256 for run in (ours, theirs)}
        assert len(sums) == 1
    sources, references = (side[:12] for side in ours.text("valid"))
    text.write_text("".join(f"{line}\n" for line in sources))
    text.with_name("reference").write_text("".join(f"{line}\n" for line in references))
    metrics = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line for line in metrics if "valid/bleu/exit_2" in line}
    assert scores.keys() == {2, 4}
    best = max(scores, key=lambda step: (scores[step]["valid/bleu/exit_2"], -step))
    for checkpoint, step in {"2": 2, "4": 4, "best": best}.items():
        for depth in (1, 2):
            folder = tmp_path / f"{checkpoint}-{depth}"
            given = [f"--workdir={workdir}", f"--config.policy=fixed:{depth}"]
            given += ["--config.beam_size=1", f"--config.input={text}"]
            given += [f"--config.reference={text.with_name('reference')}"]
            given += [f"--config.checkpoint={checkpoint}", f"--config.output={folder}"]
            succeed(decode.main, *given)
            bleu = json.loads((folder / "summary.json").read_text())["bleu"]
            assert bleu == scores[step][f"valid/bleu/exit_{depth}"]
    lines = finished.stderr.splitlines()
    start = lines.index(next(line for line in lines if "step 4: validation BLEU by exit" in line))
    hypotheses = (tmp_path / "4-2" / "hypotheses.txt").read_text().splitlines()
    assert lines[start + 1 : start + 7] == [
        f"  {name:11} {shown[number]}"
        for number in (0, 1)
        for name, shown in (
            ("source", sources),
            ("reference", references),
            ("translation", hypotheses),
        )
    ]


def test_measuring_bleu_compiles_one_program_for_each_exit(trained: Path):
    """However long its sentences are; a decode of them has a program for each room."""
    run = Run(trained)
    training = dataclasses.replace(run.config.training, bleu_every=1, bleu_exits=(1, 2))
    config = dataclasses.replace(
        run.config,
        data=dataclasses.replace(run.config.data, max_length=128),
        training=training,
        decoding=dataclasses.replace(run.config.decoding, max_source_length=0),
    )
    model, dataset = make_model(config, run.dataset().vocabularies), run.dataset()
    sources = dataset.vocabularies.source.encode(dataset.text("valid")[0])
    rooms = {room_for(len(ids), platform_of(jax.devices()[0])) for ids in sources}
    assert len(rooms) > 1
    measure = make_validation_bleu(config, model, dataset)
    assert measure is not None
    before, params = devices._compile.cache_info().misses, run.load(1).params
    scores, _ = measure(params)
    assert measure(params)[0] == scores
    assert devices._compile.cache_info().misses == before + 2


def test_the_first_lines_count_parameters_and_log_lines_have_epoch_and_perplexity(
    trained: Path, tmp_path: Path
):
    shutil.copytree(trained, workdir := tmp_path / "run")
    finished = succeed(
        train.main, *TINY, PLAIN, "--config.training.steps=6", f"--workdir={workdir}"
    )
    parts = Run(workdir).load(1).params
    count = {name: sum(leaf.size for leaf in jax.tree.leaves(parts[name])) for name in parts}
    embeddings = count["source_embedding"] + count["target_embedding"]
    heads = count["classifiers"] + count["exit_head"]
    assert finished.stdout.splitlines()[3] == (
        f"parameters: {sum(count.values()):,}; decoder {count['decoder']:,}, embeddings "
        f"{embeddings:,}, encoder {count['encoder']:,}, heads {heads:,}"
    )
    line = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-2])
    perplexity = math.exp(line["train/nll/exit_2"])
    assert line["train/perplexity"] == pytest.approx(perplexity)
    shown = f"step 6 of 6: epoch {line['train/epoch']:.2f}, loss {line['train/loss']:.3f}"
    assert f"{shown}, perplexity {perplexity:.2f}, " in finished.stderr
    assert "best checkpoint: step " in finished.stdout


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
