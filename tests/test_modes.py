# SPDX-License-Identifier: Apache-2.0
"""Whatever switches of JAX somebody has set, decoding and training do what they do without."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

import train
from dat_jax import TranslationModel
from dat_jax.data.vocabulary import EOS
from dat_jax.decoding import devices
from dat_jax.trained import TrainedModel
from dat_jax.workdir import Run
from tests.scripts.calls import PLAIN, TINY, succeed
from tests.tiny import random_params, tiny_config, tiny_model


@contextlib.contextmanager
def others_modes() -> Iterator[None]:
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"), jax.disable_jit():
        yield


def test_a_search_gives_the_same():
    model = tiny_model(exit_head="token_geometric")
    config = tiny_config(model={"exit_head": "token_geometric"}, decoding={"beam_size": 2})
    translations = TranslationModel(TrainedModel(config, model, random_params(model)))
    ids, policy = [[5, 9, 7, EOS], [4, EOS]], "token_geometric:0.4"
    expected = translations.search(ids, policy=policy)
    devices._compile.cache_clear()
    with others_modes():
        result = translations.search(ids, policy=policy)
    assert result.hypotheses == expected.hypotheses


def test_training_and_its_report_give_the_same(tmp_path: Path):
    arguments = [*TINY, PLAIN, "--config.training.steps=1"]
    succeed(train.main, *arguments, f"--workdir={tmp_path / 'plain'}")
    with others_modes():
        succeed(train.main, *arguments, f"--workdir={tmp_path / 'odd'}")
    plain, odd = (Run(tmp_path / name).load().params for name in ("plain", "odd"))
    jax.tree.map(np.testing.assert_array_equal, odd, plain)
