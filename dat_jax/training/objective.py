# SPDX-License-Identifier: Apache-2.0
"""The objective on one batch: L_dec, aligned or mixed, and L_exit (paper, section 3)."""

from typing import Any, cast

import jax
import jax.numpy as jnp

from dat_jax.config import Config
from dat_jax.data.batching import Batch
from dat_jax.data.vocabulary import PAD
from dat_jax.exits.distributions import geometric, multinomial
from dat_jax.exits.oracles import oracle_scores, sequence_oracle, token_oracle
from dat_jax.exits.sampling import sample_exits
from dat_jax.losses import TokenTerms, decoder_loss, exit_loss, exit_loss_weights, token_metrics
from dat_jax.metrics import Mean, Metrics
from dat_jax.model.transformer import Transformer
from dat_jax.teacher_forcing import forward, shifted
from dat_jax.types import Array, Bool, Float, Params, PRNGKeyArray


def aligned(
    model: Transformer,
    config: Config,
    params: Params,
    batch: Batch,
    dropout_key: PRNGKeyArray | None,
) -> Metrics:
    """Returns metrics at all exits of every token, on states that ran all blocks (equation 4).

    Args:
        model: the model.
        config: the config of the run.
        params: the model's parameters.
        batch: source and target tokens.
        dropout_key: the key of dropout; None turns dropout off.

    Returns:
        `loss`, L_dec with label smoothing; `nll` and `accuracy` of each exit; with an exit head,
        also those of `_exit_metrics`. All are means per target token.
    """
    target = jnp.asarray(batch.target)
    target_mask = target != PAD
    _, states, classifiers, exit_logits = forward(
        model,
        params,
        batch,
        gradient_scaling=config.training.gradient_scaling,
        gradient_from_above=config.training.gradient_from_above,
        detach_head=config.exit.trains != "model_and_head",
        dropout_key=dropout_key,
    )
    depths = model.config.exit_depths
    weights = jnp.asarray(exit_loss_weights(config.training.loss_weights, depths))
    loss, terms = decoder_loss(
        classifiers,
        states[depths[0] - 1 :],
        target,
        weights[:, None, None] * target_mask[None],
        config.training.label_smoothing,
    )
    counted = jnp.broadcast_to(target_mask, terms.token_ll.shape)
    metrics = {"loss": Mean(loss, jnp.sum(target_mask))} | token_metrics(terms, counted)
    if exit_logits is None:
        return metrics
    return metrics | _exit_metrics(config, exit_logits, terms, target_mask)


def mixed(
    model: Transformer, config: Config, params: Params, batch: Batch, key: PRNGKeyArray
) -> Metrics:
    """Returns metrics at random exits, with states copied to the blocks above (equation 5).

    Draws `training.exit_samples` (the paper's M) exit sequences per sentence. The decoder's batch
    has a row for each of them; the encoder runs once. Gradients flow through copied states, since
    the paper does not say otherwise.

    Args:
        model: the model.
        config: the config of the run.
        params: the model's parameters.
        batch: source and target tokens.
        key: the key of exits and dropout.

    Returns:
        `loss`, L_dec with label smoothing, and `nll` and `accuracy` of each exit over the tokens
        that exit there. All are means per target token.
    """
    source, target = jnp.asarray(batch.source), jnp.asarray(batch.target)
    inputs = shifted(target)
    samples, training = config.training.exit_samples, config.training
    dropout_key, exit_key = jax.random.split(key)
    target, inputs = (jnp.repeat(x, samples, axis=0) for x in (target, inputs))
    exit_depth = sample_exits(
        exit_key, *target.shape, model.config.decoder_layers, training.exit_sampling
    )

    def run(model: Transformer) -> tuple[Array, dict]:
        memory = model.encode(source, source != PAD, deterministic=False)
        memory, mask = (jnp.repeat(x, samples, axis=0) for x in (memory, source != PAD))
        states = model.states(inputs, memory, mask, exit_depth=exit_depth, deterministic=False)
        return states, model.classifier_weights()

    outputs = model.apply({"params": params}, method=run, rngs={"dropout": dropout_key})
    states, classifiers = cast(tuple[Array, dict[str, Any]], outputs)
    depths = jnp.arange(1, model.config.decoder_layers + 1)
    leaves = (exit_depth[None] == depths[:, None, None]) & (target != PAD)[None]
    # If all exits share one classifier, it needs only the top states, which hold the copied ones.
    one_for_all = not classifiers["per_exit"]
    loss, terms = decoder_loss(
        classifiers,
        states[-1:] if one_for_all else states,
        target,
        (jnp.any(leaves, axis=0, keepdims=True) if one_for_all else leaves) / samples,
        training.label_smoothing,
    )
    terms = jax.tree.map(lambda x: jnp.broadcast_to(x, leaves.shape), terms)
    tokens = jnp.sum(target != PAD) / samples
    return {"loss": Mean(loss, tokens)} | token_metrics(terms, leaves)


def _exit_metrics(
    config: Config, logits: Float[Array, "B *T U"], terms: TokenTerms, mask: Bool[Array, "B T"]
) -> Metrics:
    """Returns metrics of the exit head; no gradient flows through the oracles.

    `exit_loss` is L_exit (equation 6), `exit_accuracy` the share of likeliest exits that are the
    oracle's, `oracle_average_exit` and `expected_average_exit` the mean exits of oracle and head.
    """
    head, exits = config.model.exit_head, config.exit
    scores = oracle_scores(exits.oracle, *terms)
    log_probs = geometric(logits) if head == "token_geometric" else multinomial(logits)
    weights = mask.astype(jnp.float32)
    if head == "sequence_multinomial":
        oracle = sequence_oracle(
            scores, mask, exit_penalty=exits.exit_penalty, reduction=exits.sequence_oracle
        )
        log_probs, oracle = log_probs[:, None], oracle[:, None]
        once = exits.sequence_loss == "once"
        weights = jnp.max(weights, axis=1, keepdims=True) if once else weights
    else:
        oracle = token_oracle(
            scores, mask, exit_penalty=exits.exit_penalty, smoothing=exits.oracle_smoothing
        )
    log_probs = jnp.broadcast_to(log_probs, (*weights.shape, log_probs.shape[-1]))
    oracle = jnp.broadcast_to(oracle, weights.shape)

    count = jnp.sum(weights)
    depth = jnp.arange(1, log_probs.shape[-1] + 1).reshape(1, 1, -1)
    expected = jnp.sum(depth * jnp.exp(log_probs), axis=-1)
    agrees = 1 + jnp.argmax(log_probs, axis=-1) == oracle
    return {
        "exit_loss": Mean(exit_loss(log_probs, oracle, weights), jnp.sum(mask)),
        "exit_accuracy": Mean(jnp.sum(weights * agrees), count),
        "oracle_average_exit": Mean(jnp.sum(weights * oracle), count),
        "expected_average_exit": Mean(jnp.sum(weights * expected), count),
    }
