# SPDX-License-Identifier: Apache-2.0
"""A model that reads the reference: all target tokens of a batch run through all blocks at once."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from dat_jax.data.batching import Batch
from dat_jax.data.vocabulary import BOS, PAD
from dat_jax.model.classifiers import classify
from dat_jax.model.transformer import Transformer
from dat_jax.types import Array, Float, Int, Params, PRNGKeyArray


class Forward(NamedTuple):
    """The outputs of a model under teacher forcing."""

    memory: jax.Array  # [B, S, E]
    states: jax.Array  # [N, B, T, D]
    classifiers: dict[str, Any]  # weights, see `dat_jax.model.classifiers`
    exit_logits: jax.Array | None  # [B, *T, U] None without an exit head


def forward(
    model: Transformer,
    params: Params,
    batch: Batch,
    *,
    gradient_scaling: float = 0.0,
    gradient_from_above: float = 1.0,
    detach_head: bool = False,
    dropout_key: PRNGKeyArray | None = None,
) -> Forward:
    """Runs the model with teacher forcing, all tokens through all blocks.

    Args:
        model: the model.
        params: its parameters.
        batch: source and target tokens.
        gradient_scaling: see `Decoder`.
        gradient_from_above: see `Decoder`.
        detach_head: whether to stop gradients from the exit head into the model.
        dropout_key: the key of dropout; None turns dropout off.
    """
    source, inputs = jnp.asarray(batch.source), shifted(jnp.asarray(batch.target))
    source_mask, deterministic = source != PAD, dropout_key is None

    def run(model: Transformer) -> Forward:
        memory = model.encode(source, source_mask, deterministic=deterministic)
        states = model.states(
            inputs,
            memory,
            source_mask,
            gradient_scaling=gradient_scaling,
            gradient_from_above=gradient_from_above,
            deterministic=deterministic,
        )
        exit_logits = None
        if model.config.exit_head != "none":
            seen = (memory, states)
            memory_seen, states_seen = jax.lax.stop_gradient(seen) if detach_head else seen
            exit_logits = model.exit_logits(memory_seen, source_mask, states_seen)
        return Forward(memory, states, model.classifier_weights(), exit_logits)

    rngs = None if dropout_key is None else {"dropout": dropout_key}
    return cast(Forward, model.apply({"params": params}, method=run, rngs=rngs))


def shifted(target: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """Returns the decoder's inputs: BOS, and the target without its last token."""
    return jnp.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=BOS)


def map_exits(
    model: Transformer,
    outputs: Forward,
    function: Callable[[Int[Array, ""], Float[Array, "B T V"]], Any],
) -> Any:
    """Returns a function's values of the depth and the logits of each exit, stacked on a leading
    axis of exits; the logits of only one exit exist at a time."""
    depths = model.config.exit_depths

    def one_exit(exit_: tuple[Array, dict[str, Any], Array]) -> Any:
        depth, per_exit, state = exit_
        return function(depth, classify(outputs.classifiers["shared"] | per_exit, state))

    states = outputs.states[depths[0] - 1 :]
    return jax.lax.map(one_exit, (jnp.asarray(depths), outputs.classifiers["per_exit"], states))


def log_likelihood(logits: Float[Array, "B T V"], target: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """Returns the log-likelihood of each target token."""
    log_probs = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_probs, target[..., None], axis=-1)[..., 0]
