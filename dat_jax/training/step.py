# SPDX-License-Identifier: Apache-2.0
"""The jitted training step and validation step, data-parallel over a mesh."""

from collections.abc import Callable
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from dat_jax.checkpoints.state import TrainState
from dat_jax.config import Config, Sharding
from dat_jax.data.batching import Batch
from dat_jax.metrics import Mean, Metrics
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.training.gradient import make_summed_gradient
from dat_jax.training.objective import aligned
from dat_jax.training.sharding import DATA, ROWS, WHOLE, gather, shared_out, specs_of
from dat_jax.types import Params, PRNGKeyArray

Kept = TypeVar("Kept")
TrainStep = Callable[[TrainState, Batch, PRNGKeyArray], tuple[TrainState, Metrics]]
ValidationStep = Callable[[Params, Batch], Metrics]


def abstract_state(
    model: Transformer,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    sharding: Sharding,
) -> TrainState:
    """Returns the shapes, dtypes and shardings of a training state.

    Raises:
        UserError: its parameters cannot be split among these devices.
    """

    def create(key: PRNGKeyArray) -> TrainState:
        return TrainState.create(init_params(model, key), optimizer)

    return shared_out(jax.eval_shape(create, jax.random.key(0)), mesh, sharding)


def make_train_step(
    model: Transformer,
    optimizer: optax.GradientTransformation,
    config: Config,
    mesh: Mesh,
) -> TrainStep:
    """Compiles `(state, batch, key) -> (state, metrics)`, which donates the state it is given.

    The loss is the batch's mean per token of L_dec + alpha L_exit (equation 7), where alpha is 0
    before `exit.start_step`; see `make_summed_gradient`. With `training.skip_nonfinite`, a step
    whose loss or gradient is not finite changes only the step count. `key` is folded with the step,
    so no random state needs to be saved.

    Raises:
        UserError: parameters cannot be split among these devices.
    """
    like = abstract_state(model, optimizer, mesh, config.training.sharding)
    summed_gradient = make_summed_gradient(model, config, mesh, specs_of(like.params))

    def step(state: TrainState, batch: Batch, key: PRNGKeyArray) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(key, state.step)
        second_phase = state.step >= config.exit.start_step
        gradients, metrics = summed_gradient(state.params, batch, key, second_phase)
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

    whole, rows = NamedSharding(mesh, WHOLE), NamedSharding(mesh, ROWS)
    state = jax.tree.map(lambda x: x.sharding, like)
    return jax.jit(
        step,
        in_shardings=(state, rows, whole),
        out_shardings=(state, whole),
        donate_argnums=0,
    )


def _updates_of_the_head(updates: optax.Updates, alone: jax.Array) -> optax.Updates:
    """Sets the updates of all parameters except the exit head's to 0, if `alone` is true."""

    def keep_or_drop(path: tuple, update: jax.Array) -> jax.Array:
        return update if path[0].key == "exit_head" else jnp.where(alone, 0.0, update)

    return jax.tree.map_with_path(keep_or_drop, updates)


def _new_if_finite(metrics: Metrics, new: Kept, old: Kept) -> Kept:
    """Returns the new arrays if loss and gradient are finite, else the old ones."""
    sums = metrics["loss"].total, metrics["gradient_norm"].total
    finite = jnp.all(jnp.isfinite(jnp.stack(sums)))
    return jax.tree.map(lambda changed, kept: jnp.where(finite, changed, kept), new, old)


def make_validation_step(model: Transformer, config: Config, mesh: Mesh) -> ValidationStep:
    """Compiles `(params, batch) -> metrics` of all exits, without dropout.

    Uses aligned states, which are those of fixed exits, in both training modes.

    Raises:
        UserError: parameters cannot be split among these devices.
    """
    shapes = jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))
    like = shared_out(shapes, mesh, config.training.sharding)
    specs = specs_of(like)

    def of_rows(shares: Params, rows: Batch) -> Metrics:
        return jax.lax.psum(aligned(model, config, gather(shares, specs), rows, None), DATA)

    step = jax.shard_map(of_rows, mesh=mesh, in_specs=(specs, ROWS), out_specs=WHOLE)
    params = jax.tree.map(lambda x: x.sharding, like)
    rows = NamedSharding(mesh, ROWS)
    return jax.jit(step, in_shardings=(params, rows), out_shardings=NamedSharding(mesh, WHOLE))
