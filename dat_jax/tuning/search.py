# SPDX-License-Identifier: Apache-2.0
"""Thresholds tuned on validation data (paper, section 3.3): the best BLEU for each average exit.

As in the paper, 10,000 threshold vectors are drawn, and in each segment of the cost the one with
the highest BLEU is kept. Unlike there, not all of them decode. One teacher-forced pass over the
validation set keeps, of each token at each depth, what the rule looks at and the log-likelihood;
with these alone all vectors are scored. Only the most promising of each segment decode the
validation set. What is kept is the Pareto front of what they measured.
"""

import sys
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from dat_jax.config import DecodingConfig
from dat_jax.data.batching import Batch, one_pass, shapes_for
from dat_jax.data.dataset import Dataset
from dat_jax.data.tokens import TokenFile
from dat_jax.data.vocabulary import PAD
from dat_jax.decoding.capacity import Capacity
from dat_jax.evaluation.evaluate import evaluate
from dat_jax.exits.parsing import Policy
from dat_jax.model.classifiers import classify
from dat_jax.model.transformer import Transformer
from dat_jax.modes import our_modes
from dat_jax.processes import gather, is_first
from dat_jax.trained import TrainedModel, rows_on
from dat_jax.training.objective import forward
from dat_jax.tuning.fronts import Kind, rule_of
from dat_jax.types import Array, Params

CANDIDATES = 10_000  # as many as in the paper
SEGMENT = 0.5  # of average exit; the paper does not say
_BATCH_TOKENS = 4_096  # of the teacher-forced pass on a device, more if that many rows need more
_ROWS = 8


class Observed(NamedTuple):
    """Observations of one pass over the references, of each token; padding is left out."""

    signal: Float[np.ndarray, "L tokens"]  # the probability that a threshold is compared with
    token_ll: Float[np.ndarray, "N tokens"]  # the reference's log-likelihood at each exit


class Estimate(NamedTuple):
    """Expectations of what threshold vectors will do, one for each vector."""

    average_exit: Float[np.ndarray, " vectors"]
    quality: Float[np.ndarray, " vectors"]  # mean log-likelihood of the references at their exits


def tune(
    trained: TrainedModel,
    dataset: Dataset,
    kind: Kind,
    decoding: DecodingConfig,
    candidates: int = CANDIDATES,
    segment: float = SEGMENT,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Tunes the thresholds of `kind` and returns the front.

    Args:
        trained: the model.
        dataset: its data, of which the validation set is used.
        kind: of rule.
        decoding: how the validation set is decoded.
        candidates: threshold vectors to draw.
        segment: the width in average exit of the segments, each of which has one vector decode.
        seed: of the draws.

    Returns:
        The summary of each vector on the front, cheapest first, with its `thresholds`.

    Raises:
        UserError: no sentence fits into memory by these settings.
    """
    Capacity.of(trained.device, trained.model.config, decoding).check()
    observed = observe(trained, dataset.tokens("valid"), kind)
    drawn = draw(observed.signal, candidates, seed)
    estimate = estimate_all(observed, drawn)
    vectors = [tuple(map(float, drawn[index])) for index in promising(estimate, segment)]
    measured = []
    for thresholds in tqdm(
        gather(vectors)[0],
        desc=f"tuning {kind}",
        unit="vector",
        dynamic_ncols=True,
        leave=False,
        disable=not (is_first() and sys.stderr.isatty()),
    ):
        policy = Policy.of(rule_of(kind, tuple(thresholds)))
        _, summary = evaluate(trained, dataset, policy, decoding, "valid")
        measured.append({"kind": kind} | summary)
    return pareto_front(measured)


@our_modes()
def observe(trained: TrainedModel, file: TokenFile, kind: Kind) -> Observed:
    """Runs all exits over the references of the pairs in `file`, once, on all devices that hold
    the model."""
    devices = len(trained.devices)
    longest = max(file.header.longest_source, file.header.longest_target)
    batch_tokens = devices * max(_BATCH_TOKENS, _ROWS * longest)
    num_shapes = trained.config.training.num_shapes
    shapes = shapes_for([file], num_shapes, batch_tokens, devices * _ROWS)
    signals, token_lls = [], []
    for batch in one_pass(file, shapes):
        rows = jax.device_put(batch, rows_on(trained.devices))
        signal, token_ll = _observe_batch(trained.model, trained.params, rows, kind)
        real = batch.target != PAD
        signals.append(np.asarray(signal)[:, real])
        token_lls.append(np.asarray(token_ll)[:, real])
    return Observed(np.concatenate(signals, axis=1), np.concatenate(token_lls, axis=1))


@partial(jax.jit, static_argnames=("model", "kind"))
def _observe_batch(
    model: Transformer, params: Params, batch: Batch, kind: Kind
) -> tuple[Float[Array, "L B T"], Float[Array, "N B T"]]:
    target = jnp.asarray(batch.target)
    states, weights, halting_logits = forward(model, params, batch)

    def one_exit(per_exit_and_state: tuple[dict, Array]) -> tuple[Array, Array]:
        per_exit, state = per_exit_and_state
        log_probs = jax.nn.log_softmax(classify(weights["shared"] | per_exit, state))
        token_ll = jnp.take_along_axis(log_probs, target[..., None], axis=-1)[..., 0]
        return jnp.exp(jnp.max(log_probs, axis=-1)), token_ll

    confidence, token_ll = jax.lax.map(one_exit, (weights["per_exit"], states))
    if kind == "confidence" or halting_logits is None:
        return confidence[:-1], token_ll
    return jnp.moveaxis(jax.nn.sigmoid(halting_logits), -1, 0), token_ll


def draw(
    signal: Float[np.ndarray, "L tokens"], candidates: int, seed: int
) -> Float[np.ndarray, "vectors L"]:
    """Draws threshold vectors, to five decimals: half from U(0,1)^(N-1), as the paper does.

    The other half are quantiles, at uniformly drawn levels, of the probabilities that were observed
    at each depth. A good model's crowd near 1, where the first half hardly tells them apart.
    """
    level = np.random.default_rng(seed).uniform(size=(candidates, len(signal)))
    quantiles = [np.quantile(row, column) for row, column in zip(signal, level.T, strict=True)]
    uniform = np.arange(candidates) % 2 == 0
    return np.where(uniform[:, None], level, np.stack(quantiles, axis=1)).round(5)


def estimate_all(observed: Observed, thresholds: Float[np.ndarray, "vectors L"]) -> Estimate:
    """Lets each vector decide on the observed tokens, as if no state were copied."""
    tokens = np.arange(observed.token_ll.shape[1])
    rows = [exits_of(observed.signal, vector) for vector in thresholds]
    return Estimate(
        average_exit=np.array([exits.mean() for exits in rows]),
        quality=np.array([observed.token_ll[exits - 1, tokens].mean() for exits in rows]),
    )


def exits_of(
    signal: Float[np.ndarray, "L tokens"], thresholds: Float[np.ndarray, " L"]
) -> Int[np.ndarray, " tokens"]:
    """The first depth at which the signal is above its threshold, or N."""
    halts = signal > thresholds[:, None]
    return np.where(halts.any(axis=0), 1 + halts.argmax(axis=0), len(thresholds) + 1)


def promising(estimate: Estimate, segment: float) -> list[int]:
    """The vector of the best quality in each segment of average exit, lowest segment first."""
    number = np.floor((estimate.average_exit - 1) / segment).astype(int)
    return [
        int(np.where(number == n, estimate.quality, -np.inf).argmax()) for n in np.unique(number)
    ]


def pareto_front(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Summaries than which no other has as much BLEU at as low an average exit, cheapest first."""
    front: list[dict[str, Any]] = []
    for summary in sorted(measured, key=lambda s: (s["average_exit"], -s["bleu"])):
        if not front or summary["bleu"] > front[-1]["bleu"]:
            front.append(summary)
    return front
