# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules, clipping, and which parameters weight decay skips."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dat_jax.config import Schedule
from dat_jax.model.transformer import Transformer
from dat_jax.training.optimizer import learning_rate, make_optimizer
from dat_jax.types import Params
from tests.tiny import random_params, tiny_config

PLAIN = {
    "inverse_sqrt": lambda step: 0.5 * np.sqrt(10 / step),
    "constant": lambda step: 0.5 * np.ones_like(step),
    "linear": lambda step: 0.5 * (41 - step) / 31,
    "cosine": lambda step: 0.5 * (1 + np.cos(np.pi * (step - 10) / 31)) / 2,
}
"""The rate at each step after a warm-up of 10 steps to 0.5, in a run of 40 steps."""


@pytest.mark.parametrize("name", get_args(Schedule))
def test_the_learning_rate_warms_up_linearly_and_then_follows_the_schedule(name: str):
    optimizer = {"schedule": name, "learning_rate": 0.5, "warmup_steps": 10}
    rate = learning_rate(tiny_config(optimizer=optimizer, training={"steps": 40}))
    step = np.arange(1, 41)
    expected = np.where(step <= 10, 0.5 * step / 10, PLAIN[name](step))
    rates = jax.vmap(rate)(step - 1)
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-7)
    assert rates.min() > 1e-4  # even the last step updates


@pytest.mark.parametrize(
    "clip_norm, size, norm", [(3.0, 1.0, 1.0), (3.0, 100.0, 3.0), (0.0, 100.0, 100.0)]
)
def test_gradients_are_clipped_only_above_the_clip_norm(clip_norm: float, size: float, norm: float):
    config = tiny_config(optimizer={"clip_norm": clip_norm})
    params = {"kernel": jnp.zeros(4)}
    gradient = {"kernel": jnp.asarray([size, 0.0, 0.0, 0.0])}
    optimizer = make_optimizer(config)
    _, state = optimizer.update(gradient, optimizer.init(params), params)
    moment = optax.tree.get(state, "mu")["kernel"]
    np.testing.assert_allclose(moment[0], (1 - config.optimizer.beta1) * norm, rtol=1e-6)


def test_weight_decay_skips_biases_and_norms():
    config = tiny_config(model={"norm": "pre"}, optimizer={"weight_decay": 0.1})
    model = Transformer(config.model, 11, 11)
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), random_params(model))
    optimizer = make_optimizer(config)

    @jax.jit
    def updates_without_a_gradient(params: Params) -> optax.Updates:
        no_gradient = jax.tree.map(jnp.zeros_like, params)
        return optimizer.update(no_gradient, optimizer.init(params), params)[0]

    updates = updates_without_a_gradient(params)
    shrunk = {
        path[-1].key for path, update in jax.tree.leaves_with_path(updates) if np.any(update < 0)
    }
    kept = {
        path[-1].key for path, update in jax.tree.leaves_with_path(updates) if not np.any(update)
    }
    assert shrunk == {"kernel", "table"}
    assert kept == {"bias", "scale"}
