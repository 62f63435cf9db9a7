# SPDX-License-Identifier: Apache-2.0
"""One jitted training step and one jitted validation step, data-parallel over a mesh."""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dat_jax.config import TrainingConfig
from dat_jax.data.batching import Batch
from dat_jax.data.vocabulary import BOS, PAD
from dat_jax.losses import decoder_loss, exit_loss_weights, token_metrics
from dat_jax.metrics import Mean, Metrics
from dat_jax.model.transformer import Transformer
from dat_jax.training.state import TrainState
from dat_jax.types import Params, PRNGKeyArray

TrainStep = Callable[[TrainState, Batch, PRNGKeyArray], tuple[TrainState, Metrics]]
ValidationStep = Callable[[Params, Batch], Metrics]


def data_parallel_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of one axis, `data`, over all devices or those given."""
    devices = devices or jax.devices()
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def row_sharded(mesh: Mesh) -> NamedSharding:
    """Each device holds its share of a batch's rows."""
    return NamedSharding(mesh, PartitionSpec("data"))


def batch_metrics(
    model: Transformer,
    config: TrainingConfig,
    params: Params,
    batch: Batch,
    dropout_key: PRNGKeyArray | None,
) -> Metrics:
    """Runs the model on a batch, with dropout if a key is given.

    Returns:
        `loss` (equation 4, with label smoothing), and `nll` and `accuracy` of each exit.
    """
    source, target = jnp.asarray(batch.source), jnp.asarray(batch.target)
    source_mask, target_mask = source != PAD, target != PAD
    inputs = jnp.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=BOS)

    def states_and_classifiers(model: Transformer) -> tuple[jax.Array, dict]:
        deterministic = dropout_key is None
        memory = model.encode(source, source_mask, deterministic=deterministic)
        states = model.states(inputs, memory, source_mask, deterministic=deterministic)
        return states, model.classifier_weights()

    states, classifiers = model.apply(
        {"params": params},
        method=states_and_classifiers,
        rngs=None if dropout_key is None else {"dropout": dropout_key},
    )
    depths = model.config.exit_depths
    weights = exit_loss_weights(config.loss_weights, depths)
    loss, terms = decoder_loss(
        classifiers,
        states[depths[0] - 1 :],
        target,
        weights[:, None, None] * target_mask[None],
        config.label_smoothing,
    )
    return {"loss": Mean(loss, jnp.sum(target_mask))} | token_metrics(terms, target_mask)


def make_train_step(
    model: Transformer,
    optimizer: optax.GradientTransformation,
    config: TrainingConfig,
    mesh: Mesh,
) -> TrainStep:
    """Compiles `(state, batch, key) -> (state, metrics)`; the state given in is used up.

    The gradient is that of the batch's mean loss per token. With `config.accumulation` = k the
    batch's rows are run in k pieces, one after the other, and the pieces' sums divided once. The
    dropout key is `key` folded with the step, so nothing random needs to be kept.
    """

    def summed_loss(params: Params, piece: Batch, key: PRNGKeyArray) -> tuple[jax.Array, Metrics]:
        metrics = batch_metrics(model, config, params, piece, key)
        return jnp.asarray(metrics["loss"].total), metrics

    def step(state: TrainState, batch: Batch, key: PRNGKeyArray) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(key, state.step)
        pieces = jax.tree.map(lambda x: _split_rows(x, config.accumulation), batch)
        gradient = jax.grad(summed_loss, has_aux=True)

        def add_piece(sums, piece_and_index):
            piece, index = piece_and_index
            terms = gradient(state.params, piece, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, sums, terms), None

        first = jax.tree.map(lambda x: x[0], pieces)
        shapes = jax.eval_shape(gradient, state.params, first, key)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        sums = (pieces, jnp.arange(config.accumulation))
        (gradients, metrics), _ = jax.lax.scan(add_piece, zeros, sums)

        tokens = jnp.maximum(metrics["loss"].count, 1)
        gradients = jax.tree.map(lambda g: g / tokens, gradients)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
        params = cast(Params, optax.apply_updates(state.params, updates))
        metrics["gradient_norm"] = Mean(optax.tree.norm(gradients), 1.0)
        return TrainState(state.step + 1, params, optimizer_state), metrics

    whole, rows = replicated(mesh), row_sharded(mesh)
    return jax.jit(step, in_shardings=(whole, rows, whole), out_shardings=whole, donate_argnums=0)


def _split_rows(x: jax.Array, pieces: int) -> jax.Array:
    """[B, ...] to [pieces, B / pieces, ...]; each piece takes rows of every device's share."""
    return x.reshape(-1, pieces, *x.shape[1:]).swapaxes(0, 1)


def make_validation_step(model: Transformer, config: TrainingConfig, mesh: Mesh) -> ValidationStep:
    """Compiles `(params, batch) -> metrics`, without dropout."""

    def step(params: Params, batch: Batch) -> Metrics:
        return batch_metrics(model, config, params, batch, dropout_key=None)

    whole, rows = replicated(mesh), row_sharded(mesh)
    return jax.jit(step, in_shardings=(whole, rows), out_shardings=whole)
