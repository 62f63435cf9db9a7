# SPDX-License-Identifier: Apache-2.0
"""The gradient of a batch's loss, summed over microbatches and devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dat_jax.config import Config
from dat_jax.data.batching import Batch
from dat_jax.metrics import Metrics
from dat_jax.model.transformer import Transformer
from dat_jax.training.objective import aligned, mixed
from dat_jax.training.sharding import DATA, ROWS, WHOLE, add_up, gather
from dat_jax.types import Params, PRNGKeyArray

SummedGradient = Callable[[Params, Batch, PRNGKeyArray, jax.Array], tuple[Params, Metrics]]


def make_summed_gradient(
    model: Transformer, config: Config, mesh: Mesh, specs: Any
) -> SummedGradient:
    """Returns `(params, batch, key, second_phase) -> (gradients, metrics)`, sums over the batch.

    The loss is L_dec + alpha L_exit (equation 7), where alpha is 0 before the second phase.
    Parameters that a phase does not train have gradient 0, and their backward pass is not run.

    Each device runs its rows of the batch in `training.microbatches` pieces, one after another, and
    devices exchange only the sums. Each piece, and each of several devices, draws its own dropout
    and exits: `key` is folded with their indices.

    Args:
        model: the model.
        config: the config of the run.
        mesh: the devices.
        specs: the partition of parameters, and so of gradients, among devices.
    """
    gradient = _make_gradient(model, config)
    pieces = config.training.microbatches

    def of_rows(
        shares: Params, rows: Batch, key: PRNGKeyArray, second_phase: jax.Array
    ) -> tuple[Params, Metrics]:
        params = gather(shares, specs)
        if mesh.size > 1:
            key = jax.random.fold_in(key, jax.lax.axis_index(DATA))

        def add_piece(sums, piece_and_index):
            piece, index = piece_and_index
            terms = gradient(params, piece, jax.random.fold_in(key, index), second_phase)
            return jax.tree.map(jnp.add, sums, terms), None

        split = jax.tree.map(lambda x: _split_rows(x, pieces), rows)
        first = jax.tree.map(lambda x: x[0], split)
        shapes = jax.eval_shape(gradient, params, first, key, second_phase)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        zeros = jax.lax.pcast(zeros, DATA, to="varying")
        (gradients, metrics), _ = jax.lax.scan(add_piece, zeros, (split, jnp.arange(pieces)))
        return add_up(gradients, specs), jax.lax.psum(metrics, DATA)

    return jax.shard_map(
        of_rows, mesh=mesh, in_specs=(specs, ROWS, WHOLE, WHOLE), out_specs=(specs, WHOLE)
    )


def _make_gradient(model: Transformer, config: Config) -> SummedGradient:
    """Returns the gradient function for one piece of a batch."""
    metrics_of = aligned if config.training.mode == "aligned" else mixed

    def summed_loss(
        params: Params, piece: Batch, key: PRNGKeyArray, second_phase: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        metrics = metrics_of(model, config, params, piece, key)
        loss = jnp.asarray(metrics["loss"].total)
        if "exit_loss" in metrics:
            alpha = jnp.where(second_phase, config.exit.loss_weight, 0.0)
            loss += alpha * metrics["exit_loss"].total
        return loss, metrics

    def head_loss(params: Params, *rest: Any) -> tuple[jax.Array, Metrics]:
        frozen = jax.lax.stop_gradient(params) | {"exit_head": params["exit_head"]}
        return summed_loss(frozen, *rest)

    of_all, of_head = (jax.grad(loss, has_aux=True) for loss in (summed_loss, head_loss))
    if config.exit.trains != "head_alone":
        return of_all
    if config.exit.start_step == 0:
        return of_head

    def gradient(
        params: Params, piece: Batch, key: PRNGKeyArray, second_phase: jax.Array
    ) -> tuple[Params, Metrics]:
        return jax.lax.cond(second_phase, of_head, of_all, params, piece, key, second_phase)

    return gradient


def _split_rows(x: jax.Array, pieces: int) -> jax.Array:
    """Reshapes [B, ...] to [pieces, B / pieces, ...]."""
    return x.reshape(-1, pieces, *x.shape[1:]).swapaxes(0, 1)
