# SPDX-License-Identifier: Apache-2.0
"""Lowers programs for devices that this machine lacks, with shapes in place of arrays."""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from dat_jax.config import Config
from dat_jax.data.batching import Batch
from dat_jax.decoding import engine
from dat_jax.decoding.queue import Queue
from dat_jax.decoding.settings import SearchSettings
from dat_jax.decoding.sizing import choose_settings, platform_of
from dat_jax.decoding.unstacked import unstack
from dat_jax.exits.questions import Rule
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.sharding import ROWS, WHOLE
from dat_jax.training.step import abstract_state, make_train_step


def search(
    config: Config, rule: Rule, mesh: Mesh, *, rows: int, source_length: int, length: int
) -> tuple[jax.stages.Lowered, SearchSettings]:
    """Lowers a greedy search with the settings that it has on the device of a mesh.

    Args:
        config: of model and decoding; vocabularies have the size that it asks for.
        rule: decides when tokens exit.
        mesh: one device.
        rows: sentences in work.
        source_length: tokens of each source in the queue.
        length: most tokens of a translation.
    """
    size, sharding = config.data.vocabulary_size, NamedSharding(mesh, WHOLE)
    model = Transformer(config.model, size, size)
    platform = platform_of(mesh.devices.flat[0])
    decoding = dataclasses.replace(config.decoding, beam_size=1, batch_size=rows)
    many, memory = platform.window, 1 << 40
    settings = choose_settings(
        rule, config.model, decoding, many, source_length, length, memory, platform
    )

    def at_device(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=sharding)

    shapes = [(many, source_length), (many,), (many,), ()]
    queue = Queue(*cast(Any, [jax.ShapeDtypeStruct(shape, jnp.int32) for shape in shapes]))
    weights = jax.eval_shape(lambda key: unstack(model, init_params(model, key)), jax.random.key(0))
    numbers = jax.tree.map(np.float32, rule)
    arguments = jax.tree.map(at_device, (weights, numbers, queue))
    traced = engine.search.trace(model, *arguments, settings)
    return traced.lower(lowering_platforms=(_platform(mesh),)), settings


def training_step(config: Config, mesh: Mesh, length: int = 64) -> jax.stages.Lowered:
    """Lowers the training step of a config for the devices of a mesh.

    The batch has `training.batch_tokens` source tokens and as many target tokens, in rows of
    `length`; vocabularies have the size that the config asks for.

    Raises:
        UserError: parameters cannot be sharded over these devices.
    """
    size, training = config.data.vocabulary_size, config.training
    model = Transformer(config.model, size, size)
    optimizer = make_optimizer(config)
    state = abstract_state(model, optimizer, mesh, training.sharding)
    shared = mesh.size * training.microbatches
    rows = training.batch_tokens // length // shared * shared
    tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=NamedSharding(mesh, ROWS))
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=NamedSharding(mesh, WHOLE))
    step = cast(Any, make_train_step(model, optimizer, config, mesh))
    traced = step.trace(state, Batch(cast(Any, tokens), cast(Any, tokens)), key)
    return traced.lower(lowering_platforms=(_platform(mesh),))


def _platform(mesh: Mesh) -> str:
    """Returns JAX's name, when lowering, for the platform of a mesh."""
    platform = mesh.devices.flat[0].platform
    return "cuda" if platform == "gpu" else platform
