# SPDX-License-Identifier: Apache-2.0
"""Losses of all exits, computed one exit at a time (paper, section 3.1), and of exit heads."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dat_jax.config import LossWeights
from dat_jax.metrics import Mean
from dat_jax.model.classifiers import classify
from dat_jax.types import Array, Bool, Float, Int


class TokenTerms(NamedTuple):
    """Terms of each reference token at each exit; no gradient flows through them."""

    token_ll: jax.Array  # [X, B, T] log-likelihood of the reference token, without smoothing
    correct: jax.Array  # [X, B, T] true where the reference token is the likeliest
    likeliest: jax.Array  # [X, B, T] the likeliest token, the lowest of equally likely ones


def exit_loss_weights(kind: LossWeights, exit_depths: tuple[int, ...]) -> Float[np.ndarray, " X"]:
    """Returns the weights w_n of appendix A at these depths, divided by their sum (equation 4)."""
    depth = np.asarray(exit_depths, np.float32)
    weights = {
        "1": np.ones_like(depth),
        "n": depth,
        "sqrt_n": np.sqrt(depth),
        "1/sqrt_n": 1 / np.sqrt(depth),
        "1/n": 1 / depth,
    }[kind]
    return weights / weights.sum()


def decoder_loss(
    classifiers: dict[str, Any],
    states: Float[Array, "X B T D"],
    target: Int[Array, "B T"],
    token_weights: Float[Array, "X B T"],
    label_smoothing: float,
) -> tuple[Float[Array, ""], TokenTerms]:
    """Sums the negative log-likelihood of the reference over exits and tokens, with weights.

    With `token_weights` = w_n / sum(w) on real tokens and 0 on padding, this is the loss of aligned
    training (equation 4), summed over the batch.

    The logits of only one exit exist at a time. The forward pass already computes the gradients,
    because the cotangent is only a factor on them; so logits are neither stored nor recomputed.

    Args:
        classifiers: the weights from `Transformer.classifier_weights`.
        states: the decoder's states at the exits.
        target: the reference tokens.
        token_weights: the weight of each token at each exit; gets no gradient.
        label_smoothing: probability mass spread evenly over the vocabulary.

    Returns:
        The loss, and the terms of each token.
    """
    exits, *batch, dim = states.shape
    loss, terms = _loss_of_tokens(
        classifiers,
        states.reshape(exits, -1, dim),
        target.reshape(-1),
        token_weights.reshape(exits, -1),
        label_smoothing,
    )
    return loss, jax.tree.map(lambda x: x.reshape(exits, *batch), terms)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _loss_of_tokens(
    classifiers: dict[str, Any],
    states: Float[Array, "X B D"],
    target: Int[Array, "B"],
    token_weights: Float[Array, "X B"],
    label_smoothing: float,
) -> tuple[Float[Array, ""], TokenTerms]:
    """Computes `decoder_loss` with the tokens of all sentences on one axis."""

    def one_exit(xs: tuple[Any, Array, Array]) -> tuple[Array, TokenTerms]:
        per_exit, state, weight = xs
        logits = classify(classifiers["shared"] | per_exit, state)
        loss, terms, _ = _cross_entropy(logits, target, weight, label_smoothing)
        return loss, terms

    losses, terms = jax.lax.map(one_exit, (classifiers["per_exit"], states, token_weights))
    return losses.sum(), terms


def _cross_entropy(
    logits: Float[Array, "B V"],
    target: Int[Array, "B"],
    weight: Float[Array, "B"],
    label_smoothing: float,
) -> tuple[Float[Array, ""], TokenTerms, Float[Array, "B V"]]:
    """Returns one exit's loss, its token terms, and the gradient of the loss by the logits.

    The gradient is written by hand, because autodiff turns the gather into a scatter.
    """
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    target_logit = jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]
    smoothed_logit = (1 - label_smoothing) * target_logit + label_smoothing * logits.mean(axis=-1)
    greatest, size = logits.max(axis=-1), logits.shape[-1]
    tokens = jnp.arange(size)[None]
    # `correct` equals argmax(logits) == target except for ties, and `likeliest` equals argmax; both
    # are faster on a CPU. XLA drops `likeliest` where nothing reads it.
    correct = target_logit >= greatest
    likeliest = jnp.min(jnp.where(logits >= greatest[:, None], tokens, size), axis=-1)
    loss = -jnp.sum(weight * (smoothed_logit - normaliser))

    is_target = target[:, None] == tokens
    smoothed_target = jnp.where(is_target, 1 - label_smoothing, 0.0) + label_smoothing / size
    to_logits = weight[:, None] * (jnp.exp(logits - normaliser[:, None]) - smoothed_target)
    return loss, TokenTerms(target_logit - normaliser, correct, likeliest), to_logits


def _loss_forward(
    classifiers: dict[str, Any],
    states: Array,
    target: Array,
    token_weights: Array,
    label_smoothing: float,
) -> tuple[tuple[Array, TokenTerms], tuple[dict[str, Any], Array]]:
    def logits_of(shared: Any, per_exit: Any, state: Array) -> Array:
        return classify(shared | per_exit, state)

    def one_exit(shared_gradient, xs):
        per_exit, state, weight = xs
        # The barrier makes the targets depend on the exit. Otherwise XLA hoists the one-hot
        # targets, as large as the logits, out of the loop and keeps them.
        state, weight, own_target = jax.lax.optimization_barrier((state, weight, target))
        logits, backward = jax.vjp(logits_of, classifiers["shared"], per_exit, state)
        loss, terms, to_logits = _cross_entropy(logits, own_target, weight, label_smoothing)
        to_shared, to_per_exit, to_state = backward(to_logits)
        shared_gradient = jax.tree.map(jnp.add, shared_gradient, to_shared)
        return shared_gradient, (loss, terms, to_per_exit, to_state)

    to_shared, (losses, terms, to_per_exit, to_states) = jax.lax.scan(
        one_exit,
        jax.tree.map(jnp.zeros_like, classifiers["shared"]),
        (classifiers["per_exit"], states, token_weights),
    )
    gradients = ({"shared": to_shared, "per_exit": to_per_exit}, to_states)
    return (losses.sum(), terms), gradients


def _loss_backward(
    label_smoothing: float,
    gradients: tuple[dict[str, Any], Array],
    cotangents: tuple[Array, TokenTerms],
) -> tuple[dict[str, Any], Array, None, None]:
    factor, _ = cotangents
    to_classifiers, to_states = jax.tree.map(lambda g: (factor * g).astype(g.dtype), gradients)
    return to_classifiers, to_states, None, None


_loss_of_tokens.defvjp(_loss_forward, _loss_backward)


def exit_loss(
    exit_log_probs: Float[Array, "*B N"],
    oracle: Int[Array, "*B"],
    weights: Float[Array, "*B"],
) -> Float[Array, ""]:
    """Returns the weighted sum of cross-entropies between oracles and exit distributions
    (equation 6)."""
    chosen = jnp.take_along_axis(exit_log_probs, oracle[..., None] - 1, axis=-1)[..., 0]
    return -jnp.sum(weights * chosen)


def token_metrics(terms: TokenTerms, counted: Bool[Array, "X B T"]) -> dict[str, Mean]:
    """Returns the mean negative log-likelihood (without smoothing) and accuracy of each exit, over
    the tokens where `counted` is true."""
    count = jnp.sum(counted, axis=(1, 2))
    return {
        "nll": Mean(-jnp.sum(terms.token_ll, axis=(1, 2), where=counted), count),
        "accuracy": Mean(jnp.sum(terms.correct, axis=(1, 2), where=counted), count),
    }
