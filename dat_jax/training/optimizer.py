# SPDX-License-Identifier: Apache-2.0
"""Adam with inverse-square-root warm-up, clipping and decoupled weight decay."""

import jax
import optax

from dat_jax.config import OptimizerConfig
from dat_jax.types import Params


def inverse_sqrt_schedule(peak: float, warmup_steps: int) -> optax.Schedule:
    """Rises linearly to `peak` in `warmup_steps` updates, then falls with 1/sqrt(update)."""
    return optax.join_schedules(
        [
            lambda count: peak * (count + 1) / warmup_steps,
            lambda count: peak * (warmup_steps / (count + 1 + warmup_steps)) ** 0.5,
        ],
        [warmup_steps],
    )


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The optimizer of `config`; weight decay spares biases and LayerNorms."""

    def is_matrix(params: Params) -> Params:
        return jax.tree.map_with_path(
            lambda path, _: path[-1].key in ("kernel", "table"),
            params,
        )

    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(
        clip,
        optax.adamw(
            inverse_sqrt_schedule(config.learning_rate, config.warmup_steps),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=is_matrix,
        ),
    )
