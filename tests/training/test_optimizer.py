# SPDX-License-Identifier: Apache-2.0
"""The schedule's shape, clipping, and what weight decay spares."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dat_jax.model.transformer import Transformer
from dat_jax.training.optimizer import inverse_sqrt_schedule, make_optimizer
from dat_jax.types import Params
from tests.tiny import random_params, tiny_config


def test_the_learning_rate_rises_linearly_to_its_peak_and_falls_with_the_root_of_the_step():
    schedule = inverse_sqrt_schedule(peak=0.5, warmup_steps=10)
    update = np.arange(1, 50)
    expected = np.where(update <= 10, 0.5 * update / 10, 0.5 * np.sqrt(10 / update))
    np.testing.assert_allclose([float(schedule(u - 1)) for u in update], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "clip_norm, size, norm", [(3.0, 1.0, 1.0), (3.0, 100.0, 3.0), (0.0, 100.0, 100.0)]
)
def test_gradients_are_scaled_down_to_the_clip_norm_and_never_up_and_0_is_off(
    clip_norm: float, size: float, norm: float
):
    config = tiny_config(optimizer={"clip_norm": clip_norm}).optimizer
    params = {"kernel": jnp.zeros(4)}
    gradient = {"kernel": jnp.asarray([size, 0.0, 0.0, 0.0])}
    optimizer = make_optimizer(config)
    _, state = optimizer.update(gradient, optimizer.init(params), params)
    moment = optax.tree.get(state, "mu")["kernel"]
    np.testing.assert_allclose(moment[0], (1 - config.beta1) * norm, rtol=1e-6)


def test_weight_decay_shrinks_matrices_and_spares_biases_and_norms():
    config = tiny_config(model={"norm": "pre"}, optimizer={"weight_decay": 0.1})
    model = Transformer(config.model, 11, 11)
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), random_params(model))
    optimizer = make_optimizer(config.optimizer)

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
