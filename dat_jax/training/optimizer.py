# SPDX-License-Identifier: Apache-2.0
"""Adam with a learning-rate schedule, clipping and decoupled weight decay."""

import jax
import optax

from dat_jax.config import Config, OptimizerConfig
from dat_jax.types import Params


def learning_rate(config: Config) -> optax.Schedule:
    """Returns the learning rate as a function of the number of updates made.

    It rises linearly to the peak in `warmup_steps` updates, then follows `optimizer.schedule`. It
    is above 0 for all `training.steps` updates.
    """
    peak, warmup_steps = config.optimizer.learning_rate, config.optimizer.warmup_steps
    after = _after_warmup(config.optimizer, config.training.steps - warmup_steps + 1)
    return optax.join_schedules(
        [lambda count: peak * (count + 1) / warmup_steps, lambda count: after(count + 1)],
        [warmup_steps],
    )


def _after_warmup(config: OptimizerConfig, end: int) -> optax.Schedule:
    """Returns the rate of each update after warm-up, counted from 1; training ends before `end`."""
    peak, warmup_steps = config.learning_rate, config.warmup_steps
    match config.schedule:
        case "inverse_sqrt":
            return lambda count: peak * (warmup_steps / (count + warmup_steps)) ** 0.5
        case "constant":
            return optax.constant_schedule(peak)
        case "linear":
            return optax.linear_schedule(peak, 0.0, end)
        case "cosine":
            return optax.cosine_decay_schedule(peak, end)


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """Returns the optimizer of `config`; weight decay excludes biases and LayerNorms."""
    optimizer = config.optimizer

    def is_matrix(params: Params) -> Params:
        return jax.tree.map_with_path(
            lambda path, _: path[-1].key in ("kernel", "table"),
            params,
        )

    norm = optimizer.clip_norm
    clip = optax.clip_by_global_norm(norm) if norm else optax.identity()
    return optax.chain(
        clip,
        optax.adamw(
            learning_rate(config),
            b1=optimizer.beta1,
            b2=optimizer.beta2,
            eps=optimizer.epsilon,
            weight_decay=optimizer.weight_decay,
            mask=is_matrix,
        ),
    )
