# SPDX-License-Identifier: Apache-2.0
"""One jitted training step and one jitted validation step, data-parallel over a mesh."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dat_jax.config import Config
from dat_jax.data.batching import Batch
from dat_jax.metrics import Mean, Metrics
from dat_jax.model.transformer import Transformer
from dat_jax.training.objective import aligned, mixed
from dat_jax.types import Params, PRNGKeyArray


class TrainState(NamedTuple):
    """Everything that a training step changes. A checkpoint holds it and the position in the data;
    randomness follows from the step."""

    step: jax.Array  # [] updates made so far
    params: Params
    optimizer_state: optax.OptState

    @classmethod
    def create(cls, params: Params, optimizer: optax.GradientTransformation) -> "TrainState":
        """The state before the first step."""
        return cls(jnp.zeros((), jnp.int32), params, optimizer.init(params))


Kept = TypeVar("Kept")
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


def make_train_step(
    model: Transformer,
    optimizer: optax.GradientTransformation,
    config: Config,
    mesh: Mesh,
) -> TrainStep:
    """Compiles `(state, batch, key) -> (state, metrics)`; the state given in is used up.

    The gradient is that of the batch's mean per token of L_dec + alpha L_exit (equation 7), where
    alpha is 0 before `exit.start_step`. With `training.microbatches` = k the batch's rows are run
    in k pieces, one after the other, and the pieces' sums divided once. Where steps may be skipped,
    by `training.skip_nonfinite`, one with a loss or a gradient that is not finite changes nothing
    but the step. What is random follows from `key` folded with the step, so nothing of it needs to
    be kept.
    """
    metrics_of = aligned if config.training.mode == "aligned" else mixed
    pieces = config.training.microbatches
    always_alone = config.exit.trains == "head_alone" and config.exit.start_step == 0

    def summed_loss(
        params: Params, piece: Batch, key: PRNGKeyArray, alpha: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        if always_alone:  # nothing needs the model's gradients
            params = jax.lax.stop_gradient(params) | {"exit_head": params["exit_head"]}
        metrics = metrics_of(model, config, params, piece, key)
        loss = jnp.asarray(metrics["loss"].total)
        if "exit_loss" in metrics:
            loss += alpha * metrics["exit_loss"].total
        return loss, metrics

    def step(state: TrainState, batch: Batch, key: PRNGKeyArray) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(key, state.step)
        second_phase = state.step >= config.exit.start_step
        alpha = jnp.where(second_phase, config.exit.loss_weight, 0.0)
        gradient = jax.grad(summed_loss, has_aux=True)

        def add_piece(sums, piece_and_index):
            piece, index = piece_and_index
            terms = gradient(state.params, piece, jax.random.fold_in(key, index), alpha)
            return jax.tree.map(jnp.add, sums, terms), None

        split = jax.tree.map(lambda x: _split_rows(x, pieces), batch)
        first = jax.tree.map(lambda x: x[0], split)
        shapes = jax.eval_shape(gradient, state.params, first, key, alpha)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (gradients, metrics), _ = jax.lax.scan(add_piece, zeros, (split, jnp.arange(pieces)))

        tokens = jnp.maximum(metrics["loss"].count, 1)
        gradients = jax.tree.map(lambda g: g / tokens, gradients)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
        if config.exit.trains == "head_alone":
            updates = _updates_of_the_head(updates, second_phase)
        params = cast(Params, optax.apply_updates(state.params, updates))
        metrics["gradient_norm"] = Mean(optax.tree.norm(gradients), 1.0)
        if config.training.skip_nonfinite:
            new, old = (params, optimizer_state), (state.params, state.optimizer_state)
            params, optimizer_state = _new_if_finite(metrics, new, old)
        return TrainState(state.step + 1, params, optimizer_state), metrics

    whole, rows = replicated(mesh), row_sharded(mesh)
    return jax.jit(step, in_shardings=(whole, rows, whole), out_shardings=whole, donate_argnums=0)


def _updates_of_the_head(updates: optax.Updates, alone: jax.Array) -> optax.Updates:
    """Leaves all parameters but the exit head's as they are, if `alone` is true."""

    def keep_or_drop(path: tuple, update: jax.Array) -> jax.Array:
        return update if path[0].key == "exit_head" else jnp.where(alone, 0.0, update)

    return jax.tree.map_with_path(keep_or_drop, updates)


def _new_if_finite(metrics: Metrics, new: Kept, old: Kept) -> Kept:
    """Chooses the new arrays where loss and gradient are finite, and the old ones elsewhere."""
    sums = metrics["loss"].total, metrics["gradient_norm"].total
    finite = jnp.all(jnp.isfinite(jnp.stack(sums)))
    return jax.tree.map(lambda changed, kept: jnp.where(finite, changed, kept), new, old)


def _split_rows(x: jax.Array, pieces: int) -> jax.Array:
    """[B, ...] to [pieces, B / pieces, ...]; each piece takes rows of every device's share."""
    return x.reshape(-1, pieces, *x.shape[1:]).swapaxes(0, 1)


def make_validation_step(model: Transformer, config: Config, mesh: Mesh) -> ValidationStep:
    """Compiles `(params, batch) -> metrics` of all exits, without dropout.

    Aligned states are those of fixed exits, however the model was trained.
    """

    def step(params: Params, batch: Batch) -> Metrics:
        return aligned(model, config, params, batch, dropout_key=None)

    whole, rows = replicated(mesh), row_sharded(mesh)
    return jax.jit(step, in_shardings=(whole, rows), out_shardings=whole)
