# SPDX-License-Identifier: Apache-2.0
"""The training loop: its files, exact resumption, and stopping."""

import dataclasses
import functools
import json
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from dat_jax.checkpoints.folders import saved_steps
from dat_jax.checkpoints.read import average
from dat_jax.config import Config
from dat_jax.data.batching import BatchIterator, one_pass, shapes_for
from dat_jax.data.dataset import Dataset
from dat_jax.data.shapes import Shape
from dat_jax.errors import Stopped, UserError
from dat_jax.metrics import Metrics, compute
from dat_jax.model.transformer import init_params
from dat_jax.runs.workdir import Run, make_model
from dat_jax.training import loop
from dat_jax.training.loop import Trained, train
from dat_jax.training.objective import aligned
from dat_jax.types import Params
from tests.tiny import tiny_config

CONFIG = tiny_config(
    data={"source": "generated:60", "vocabulary_size": 100, "max_length": 64},
    model={"decoder_layers": 2, "encoder_layers": 1, "dropout": 0.1},
    optimizer={"learning_rate": 1e-2, "warmup_steps": 4},
    training={
        "steps": 7,
        "batch_tokens": 512,
        "num_shapes": 1,
        "log_every": 3,
        "validate_every": 5,
        "checkpoint_every": 2,
        "keep_checkpoints": 2,
    },
)


def with_training(config: Config, **changes: int | str) -> Config:
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **changes))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Run(tmp_path_factory.mktemp("data")).prepare(CONFIG)


def run(config: Config, dataset: Dataset, workdir: Path) -> Trained:
    workdir.mkdir(exist_ok=True)
    model = make_model(config, dataset.vocabularies)
    files = Run(workdir).training_files
    return train(config, model, dataset, files, functools.partial(init_params, model))


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run; read only."""
    workdir = tmp_path_factory.mktemp("whole")
    run(CONFIG, dataset, workdir)
    return workdir


@pytest.fixture(scope="module")
def interrupted(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run, interrupted between two checkpoints, that logged every step; read
    only."""
    workdir = tmp_path_factory.mktemp("interrupted")
    run(with_training(CONFIG, steps=4, log_every=1), dataset, workdir)
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "train/loss": 1.0}\n{"step": 6, "tr')
    run(with_training(CONFIG, log_every=1), dataset, workdir)
    return workdir


class Asked:
    """A request to stop after a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def __enter__(self) -> "Asked":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def after(self, step: int) -> signal.Signals | None:
        return signal.SIGTERM if step >= self._step else None


@pytest.mark.slow
@pytest.mark.parametrize("asked_after", [7, 8])
def test_a_stop_request_after_the_last_step_still_stops(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked_after: int
):
    monkeypatch.setattr(loop, "StopRequest", lambda: Asked(asked_after))
    with pytest.raises(Stopped, match="stopped by SIGTERM at step 7, which is saved"):
        run(CONFIG, dataset, tmp_path)
    assert saved_steps(tmp_path / "checkpoints") == [6, 7]


@pytest.mark.parametrize(("asked_after", "steps"), [(4, [2, 4]), (5, [2, 4, 5])])
def test_the_next_checkpoint_replaces_one_made_by_a_stop(
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked_after: int,
    steps: list[int],
):
    config = with_training(CONFIG, keep_checkpoints=3)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", lambda: Asked(asked_after))
        with pytest.raises(Stopped):
            run(config, dataset, tmp_path)
    assert saved_steps(tmp_path / "checkpoints") == steps
    run(config, dataset, tmp_path)
    assert saved_steps(tmp_path / "checkpoints") == [4, 6, 7]


def test_damaged_metrics_are_refused_and_left_alone(dataset: Dataset, tmp_path: Path):
    file = tmp_path / "metrics.jsonl"
    file.write_text("no JSON\n")
    with pytest.raises(UserError, match="is damaged: restore it, or move it away"):
        run(CONFIG, dataset, tmp_path)
    assert file.read_text() == "no JSON\n"


def last_params(dataset: Dataset, workdir: Path) -> tuple[list[int], Params]:
    params = init_params(make_model(CONFIG, dataset.vocabularies), jax.random.key(0))
    steps, params, _ = average(workdir / "checkpoints", params, at_most=1)
    return steps, params


def position(dataset: Dataset, workdir: Path) -> dict[str, int]:
    """The position in the data at the last checkpoint."""
    params = init_params(make_model(CONFIG, dataset.vocabularies), jax.random.key(0))
    return average(workdir / "checkpoints", params, at_most=1).position["batches"]


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def values_at_steps(workdir: Path, name: str) -> dict[int, float]:
    """The values of a metric by step."""
    return {line["step"]: line[name] for line in read_metrics(workdir) if name in line}


def test_an_interrupted_run_ends_with_identical_parameters(
    dataset: Dataset, whole: Path, interrupted: Path
):
    steps, of_whole = last_params(dataset, whole)
    assert steps == [7]
    steps, of_interrupted = last_params(dataset, interrupted)
    assert steps == [7]
    jax.tree.map(np.testing.assert_array_equal, of_whole, of_interrupted)


def test_metrics_are_written_when_they_are_due(whole: Path):
    assert list(values_at_steps(whole, "train/loss")) == [2, 3, 4, 6, 7]
    assert list(values_at_steps(whole, "valid/loss")) == [5, 7]
    assert list((whole / "tensorboard").iterdir())


def test_metrics_average_all_steps_since_the_last_line(whole: Path, interrupted: Path):
    of_each_step = values_at_steps(interrupted, "train/gradient_norm")
    last = 0
    for step, value in values_at_steps(whole, "train/gradient_norm").items():
        mean = np.mean([of_each_step[since] for since in range(last + 1, step + 1)])
        np.testing.assert_allclose(value, mean, rtol=1e-5)
        last = step


def test_the_logged_learning_rate_is_the_one_of_its_step(interrupted: Path):
    peak, warmup = CONFIG.optimizer.learning_rate, CONFIG.optimizer.warmup_steps
    for step, rate in values_at_steps(interrupted, "train/learning_rate").items():
        expected = peak * min(step / warmup, (warmup / step) ** 0.5)
        np.testing.assert_allclose(rate, expected, rtol=1e-6)


def test_mfu_is_logged_only_if_the_peak_is_known(
    dataset: Dataset, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert all(flops > 0 for flops in values_at_steps(whole, "train/flops").values())
    assert values_at_steps(whole, "train/mfu") == {}
    monkeypatch.setattr(loop, "peak_flops", lambda kinds, dtype: 1e9 * len(kinds))
    run(with_training(CONFIG, steps=1), dataset, tmp_path)
    tokens = dataset.tokens("train")
    first = next(BatchIterator(tokens, shapes_for([tokens], 1, 512, row_multiple=8), seed=0))
    line, _ = read_metrics(tmp_path)
    seconds = np.count_nonzero(first.target) / line["train/tokens_per_second"]
    expected = line["train/flops"] / seconds / (1e9 * len(jax.devices()))
    np.testing.assert_allclose(line["train/mfu"], expected, rtol=1e-6)


def test_validation_covers_all_pairs(dataset: Dataset, whole: Path):
    """The loop's batches hold 8 pairs; here one batch holds all pairs."""
    pairs, model = dataset.tokens("valid"), make_model(CONFIG, dataset.vocabularies)
    shape = Shape(len(pairs), int(pairs.source_lengths.max()), int(pairs.target_lengths.max()))
    (batch,) = one_pass(pairs, [shape])
    assert len(pairs) > 8
    _, params = last_params(dataset, whole)
    evaluate = jax.jit(functools.partial(aligned, model, CONFIG, dropout_key=None))
    expected = compute(evaluate(params, batch), model.config.exit_depths)
    for name, value in expected.items():
        written = values_at_steps(whole, f"valid/{name}")
        np.testing.assert_allclose(written[7], value, rtol=1e-4, err_msg=name)


def test_repeated_steps_are_logged_once(interrupted: Path):
    logged = [line["step"] for line in read_metrics(interrupted) if "train/loss" in line]
    assert logged == [1, 2, 3, 4, 5, 6, 7]
    assert values_at_steps(interrupted, "train/loss")[5] != 1.0


def test_changed_batch_shapes_resume_at_the_next_epoch(
    dataset: Dataset, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    shutil.copytree(whole, tmp_path / "run")
    # 32 rows would fit but do not divide into three microbatches; 24 do.
    other = with_training(CONFIG, steps=8, batch_tokens=2_048, microbatches=3)
    epoch = position(dataset, whole)["epoch"]
    run(other, dataset, tmp_path / "run")
    assert "resuming at the next epoch" in caplog.text
    assert position(dataset, tmp_path / "run") == {"seed": 0, "epoch": epoch + 1, "next_batch": 1}
    assert 8 in values_at_steps(tmp_path / "run", "train/loss")


def test_checkpoints_may_be_kept_in_another_folder(dataset: Dataset, whole: Path, tmp_path: Path):
    workdir, folder = tmp_path / "run", tmp_path / "other" / "checkpoints"
    config = with_training(CONFIG, checkpoint_folder=str(folder))
    for steps in (3, 7):
        workdir.mkdir(exist_ok=True)
        config.save(Run(workdir).config_file)
        run(with_training(config, steps=steps), dataset, workdir)
    assert Run(workdir).saved_steps == [3, 6, 7]  # the best, and the newest two
    assert not (workdir / "checkpoints").exists()
    params = init_params(make_model(CONFIG, dataset.vocabularies), jax.random.key(0))
    ours = average(folder, params, at_most=1).params
    jax.tree.map(np.testing.assert_array_equal, ours, last_params(dataset, whole)[1])


def test_profiles_are_written_into_the_workdir(dataset: Dataset, whole: Path, tmp_path: Path):
    run(with_training(CONFIG, steps=2, profile="2-2"), dataset, tmp_path)
    assert len(list(tmp_path.glob("profile/plugins/profile/*/*.xplane.pb"))) == 1
    assert not (whole / "profile").exists()


def test_another_vocabulary_is_refused(dataset: Dataset, whole: Path, tmp_path: Path):
    shutil.copytree(whole, tmp_path / "run")
    data = dataclasses.replace(CONFIG.data, pieces="unigram")
    other = Run(tmp_path / "data").prepare(dataclasses.replace(CONFIG, data=data))
    with pytest.raises(UserError, match="another vocabulary than that of the checkpoints"):
        run(CONFIG, other, tmp_path / "run")


def test_a_finished_run_does_nothing(dataset: Dataset, whole: Path, tmp_path: Path):
    before = read_metrics(whole)
    shutil.copytree(whole, tmp_path / "again")
    run(CONFIG, dataset, tmp_path / "again")
    assert read_metrics(tmp_path / "again") == before


def test_a_non_finite_loss_ends_the_run_without_saving(dataset: Dataset, tmp_path: Path):
    optimizer = dataclasses.replace(CONFIG.optimizer, learning_rate=1e30, warmup_steps=1)
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    with pytest.raises(UserError, match=r"the \w+ is .* lower optimizer\.learning_rate") as caught:
        run(config, dataset, tmp_path)
    assert "at step 2, of epoch 0, batch 1 (training pairs " in str(caught.value)
    assert "nothing is saved" in str(caught.value)
    assert not (tmp_path / "checkpoints" / "00000002").exists()


def test_only_a_limited_number_of_steps_is_skipped(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    optimizer = dataclasses.replace(CONFIG.optimizer, learning_rate=1e30, warmup_steps=1)
    config = with_training(CONFIG, skip_nonfinite=3)
    with pytest.raises(UserError, match=r"at step 5, of epoch 1, batch 0 .* is of step 4: lower"):
        run(dataclasses.replace(config, optimizer=optimizer), dataset, tmp_path)
    lines = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert [line.rpartition(": ")[2] for line in lines] == [
        f"skipped, {count} of at most 3" for count in (1, 2, 3)
    ]
    _, first = last_params(dataset, tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(first))
    assert list(values_at_steps(tmp_path, "train/loss")) == [2]


def test_the_loop_runs_at_most_two_steps_ahead(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A stop has to wait for all steps that were dispatched."""
    waits, wait = list[float](), jax.block_until_ready

    def recorded(metrics: Metrics) -> Metrics:
        waits.append(float(metrics["loss"].total))
        return wait(metrics)

    monkeypatch.setattr(loop.jax, "block_until_ready", recorded)
    rarely = {"log_every": 7, "validate_every": 7, "checkpoint_every": 7}
    run(with_training(CONFIG, **rarely), dataset, tmp_path)
    assert len(set(waits)) == 7 - 2  # all but the last two steps
