# SPDX-License-Identifier: Apache-2.0
"""Programs lowered for devices that need not be here, with shapes in place of arrays."""

from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from dat_jax.config import Config
from dat_jax.data.batching import Batch
from dat_jax.model.transformer import Transformer
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.sharding import ROWS, WHOLE
from dat_jax.training.step import abstract_state, make_train_step


def training_step(config: Config, mesh: Mesh, length: int = 64) -> jax.stages.Lowered:
    """Lowers the training step of a config for the devices of a mesh.

    Its batch has `training.batch_tokens` target tokens, in rows of `length`, and as many source
    tokens; each vocabulary has the size that the config asks for.

    Raises:
        UserError: parameters cannot be shared out to these devices.
    """
    size, training = config.data.vocabulary_size, config.training
    model = Transformer(config.model, size, size)
    optimizer = make_optimizer(config.optimizer)
    state = abstract_state(model, optimizer, mesh, training.sharding)
    shared = mesh.size * training.microbatches
    rows = training.batch_tokens // length // shared * shared
    tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=NamedSharding(mesh, ROWS))
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=NamedSharding(mesh, WHOLE))
    step = cast(Any, make_train_step(model, optimizer, config, mesh))
    traced = step.trace(state, Batch(cast(Any, tokens), cast(Any, tokens)), key)
    return traced.lower(lowering_platforms=(mesh.devices.flat[0].platform,))
