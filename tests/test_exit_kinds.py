# SPDX-License-Identifier: Apache-2.0
"""Every exit head and every oracle, from a few training steps to translations."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from dat_jax.checkpoints.state import TrainState
from dat_jax.config import Config
from dat_jax.data.batching import BatchIterator, shapes_for
from dat_jax.data.dataset import Dataset
from dat_jax.decoding.trained import TrainedModel
from dat_jax.decoding.translator import Translator
from dat_jax.exits.parsing import parse_policy
from dat_jax.metrics import compute
from dat_jax.runs.workdir import Run, make_model
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.sharding import data_parallel_mesh
from dat_jax.training.step import make_train_step
from dat_jax.types import Params
from tests.tiny import random_params, tiny_config

STEPS = 4


def config_of(head: str, oracle: str) -> Config:
    return tiny_config(
        data={"source": "generated:60", "vocabulary_size": 100, "max_length": 40},
        model={"exit_head": head, "encoder_layers": 1, "decoder_layers": 2},
        exit={"oracle": oracle, "loss_weight": 1.0, "oracle_smoothing": 1.0, "start_step": 2},
        optimizer={"learning_rate": 0.05, "warmup_steps": 1},
        training={"batch_tokens": 512, "num_shapes": 1},
        decoding={"max_length_ratio": 0.5, "max_length_extra": 4},
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    config = config_of("token_geometric", "likelihood")
    return Run(tmp_path_factory.mktemp("data")).prepare(config)


def train(config: Config, dataset: Dataset) -> tuple[Params, list[dict[str, float]]]:
    """Trains a few steps, the last ones with the exit loss; returns the metrics of each."""
    model, optimizer = make_model(config, dataset.vocabularies), make_optimizer(config)
    state = TrainState.create(random_params(model), optimizer)
    step = make_train_step(model, optimizer, config, data_parallel_mesh(jax.devices()[:1]))
    shapes = shapes_for([dataset.tokens("train")], 1, config.training.batch_tokens, 8)
    batches = BatchIterator(dataset.tokens("train"), shapes, seed=0)
    metrics = []
    for _ in range(STEPS):
        state, sums = step(state, next(batches), jax.random.key(1))
        metrics.append(compute(sums, config.model.exit_depths))
    return state.params, metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "oracle", "beam_size"),
    [
        ("sequence_multinomial", "likelihood", 4),
        ("token_multinomial", "correctness", 1),
        ("token_geometric", "likelihood", 4),
        ("token_geometric", "agreement", 1),
    ],
)
def test_an_exit_head_trains_and_decodes(head: str, oracle: str, beam_size: int, dataset: Dataset):
    config = config_of(head, oracle)
    params, metrics = train(config, dataset)
    for values in metrics:
        assert all(math.isfinite(value) for value in values.values())
        assert 1 <= values["oracle_average_exit"] <= config.model.decoder_layers
        assert 1 <= values["expected_average_exit"] <= config.model.decoder_layers
    assert metrics[-1]["loss"] < metrics[0]["loss"]

    model = make_model(config, dataset.vocabularies)
    translator = Translator(
        TrainedModel(config, model, params, dataset.vocabularies),
        parse_policy(head, config.model),
        dataclasses.replace(config.decoding, beam_size=beam_size),
    )
    lines = sorted(dataset.text("test")[0], key=len)[:5]  # of one room, so one program
    for sentence in translator.translate(lines).sentences:
        exits = np.asarray(sentence.exits)
        assert len(exits) == len(sentence.pieces) > 0
        assert ((exits >= 1) & (exits <= config.model.decoder_layers)).all()
        if head == "sequence_multinomial":
            assert len(set(sentence.exits)) == 1
