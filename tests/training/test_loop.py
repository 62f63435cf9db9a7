# SPDX-License-Identifier: Apache-2.0
"""The loop: what it leaves behind, that it can be cut anywhere, and that it stops in time."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from dat_jax.config import Config
from dat_jax.data.dataset import Dataset
from dat_jax.data.prepare import prepare
from dat_jax.errors import UserError
from dat_jax.model.transformer import init_params
from dat_jax.training.checkpoint import Checkpoints
from dat_jax.training.loop import train
from dat_jax.types import Params
from dat_jax.workdir import make_model
from tests.tiny import tiny_config

CONFIG = tiny_config(
    data={"source": "generated:60", "vocabulary_size": 100, "max_length": 64},
    model={"num_layers": 2, "encoder_layers": 1, "dropout": 0.1},
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


def with_training(config: Config, **changes: int) -> Config:
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **changes))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(CONFIG.data, tmp_path_factory.mktemp("data"))


def run(config: Config, dataset: Dataset, workdir: Path) -> None:
    workdir.mkdir(exist_ok=True)
    model = make_model(config, dataset)
    train(config, model, dataset, workdir, functools.partial(init_params, model))


def last_params(dataset: Dataset, workdir: Path) -> tuple[list[int], Params]:
    params = init_params(make_model(CONFIG, dataset), jax.random.key(0))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return checkpoints.average(params, at_most=1)


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_cut_in_two_ends_in_the_very_same_parameters(dataset: Dataset, tmp_path: Path):
    run(CONFIG, dataset, tmp_path / "whole")
    run(with_training(CONFIG, steps=4), dataset, tmp_path / "cut")
    run(CONFIG, dataset, tmp_path / "cut")
    steps, whole = last_params(dataset, tmp_path / "whole")
    assert steps == [7]
    steps, cut = last_params(dataset, tmp_path / "cut")
    assert steps == [7]
    jax.tree.map(np.testing.assert_array_equal, whole, cut)

    metrics = read_metrics(tmp_path / "whole")
    logged = [line["step"] for line in metrics if "train/loss" in line]
    assert logged == [2, 3, 4, 6, 7]
    assert [line["step"] for line in metrics if "valid/loss" in line] == [5, 7]
    assert list((tmp_path / "whole" / "tensorboard").iterdir())


def test_steps_that_are_made_again_are_written_once(dataset: Dataset, tmp_path: Path):
    run(with_training(CONFIG, steps=4), dataset, tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:  # as if cut off between checkpoints
        file.write('{"step": 5, "train/loss": 1.0}\n{"step": 6, "tr')
    run(CONFIG, dataset, tmp_path)
    logged = [line["step"] for line in read_metrics(tmp_path) if "train/loss" in line]
    assert logged == [2, 3, 4, 6, 7]


def test_other_batch_shapes_make_it_go_on_with_the_next_epoch(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    run(with_training(CONFIG, steps=2), dataset, tmp_path)
    run(with_training(CONFIG, steps=4, batch_tokens=1_024), dataset, tmp_path)
    assert "going on with the next epoch" in caplog.text


def test_another_vocabulary_is_refused(dataset: Dataset, tmp_path: Path):
    run(with_training(CONFIG, steps=2), dataset, tmp_path / "run")
    data = dataclasses.replace(CONFIG.data, pieces="unigram")
    other = prepare(data, tmp_path / "data")
    with pytest.raises(UserError, match="another vocabulary than the checkpoints"):
        run(CONFIG, other, tmp_path / "run")


def test_a_finished_run_does_nothing_more(dataset: Dataset, tmp_path: Path):
    run(CONFIG, dataset, tmp_path)
    before = read_metrics(tmp_path)
    run(CONFIG, dataset, tmp_path)
    assert read_metrics(tmp_path) == before


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(dataset: Dataset, tmp_path: Path):
    optimizer = dataclasses.replace(CONFIG.optimizer, learning_rate=1e30, warmup_steps=1)
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    with pytest.raises(UserError, match=r"the \w+ is .* lower optimizer\.learning_rate"):
        run(config, dataset, tmp_path)
    assert not (tmp_path / "checkpoints" / "00000002").exists()
