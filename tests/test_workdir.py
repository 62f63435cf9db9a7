# SPDX-License-Identifier: Apache-2.0
"""What a run takes over from the run that it starts from."""

from pathlib import Path

import jax
import numpy as np
import pytest

from dat_jax.config import Config
from dat_jax.data.dataset import Dataset
from dat_jax.data.prepare import prepare
from dat_jax.training.checkpoint import Checkpoints
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.state import TrainState
from dat_jax.types import Params
from dat_jax.workdir import initial_params, make_model
from tests.tiny import random_params, tiny_config


def config_with(head: str, initial: Path | None = None, **model: str) -> Config:
    """Encoder and decoder are of one width: the two multinomial heads have the same shapes."""
    return tiny_config(
        data={"source": "generated:60", "vocabulary_size": 100, "max_length": 40},
        model={"exit_head": head, "encoder_dim": 8, "encoder_heads": 2} | model,
        training={"initial_workdir": str(initial or "")},
    )


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset, Params]:
    """A workdir with a checkpoint of random parameters and a sequence multinomial head."""
    workdir, config = tmp_path_factory.mktemp("first"), config_with("sequence_multinomial")
    dataset = prepare(config.data, workdir)
    params = random_params(make_model(config, dataset))
    state = TrainState.create(params, make_optimizer(config.optimizer))
    config.save(workdir / "config.json")
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(state, {})
    return workdir, dataset, params


@pytest.mark.parametrize("head", ["none", "sequence_multinomial", "token_multinomial"])
def test_the_model_is_taken_over_and_a_head_of_its_own_kind(first, head: str):
    workdir, dataset, there = first
    config = config_with(head, workdir)
    params = initial_params(config, make_model(config, dataset), dataset, jax.random.key(0))
    same_head = head == "sequence_multinomial"
    assert ("exit_head" in params) == (head != "none")
    for name in params:
        for mine, theirs in zip(
            jax.tree.leaves(params[name]), jax.tree.leaves(there[name]), strict=True
        ):
            equal = np.array_equal(mine, theirs)
            assert equal == (name != "exit_head" or same_head)
