# SPDX-License-Identifier: Apache-2.0
"""Tunes thresholds on validation data (paper, section 3.3): the best BLEU for each average exit.

As in the paper, draws 10,000 threshold vectors and keeps those with the highest BLEU at each cost.
Unlike the paper, it does not decode with all of them: one teacher-forced pass over the validation
set records the rule's signal and the log-likelihood of each token at each depth, and all vectors
are scored on these. Only the most promising vector of each segment of average exit decodes the
validation set. The result is the Pareto front of the measured BLEU and average exits.
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
from dat_jax.data.vocabulary import EOS, PAD
from dat_jax.decoding.capacity import Capacity
from dat_jax.decoding.next_tokens import suited
from dat_jax.decoding.trained import TrainedModel, rows_on
from dat_jax.evaluation.evaluate import evaluate
from dat_jax.exits.parsing import Policy
from dat_jax.model.classifiers import classify, weights_of_exit
from dat_jax.model.transformer import Transformer
from dat_jax.runtime.jax_flags import our_modes
from dat_jax.runtime.processes import gather, is_first
from dat_jax.teacher_forcing import forward, log_likelihood, map_exits
from dat_jax.tuning.fronts import Kind, rule_of
from dat_jax.types import Array, Params

CANDIDATES = 10_000  # as in the paper
SEGMENT = 0.5  # of average exit; the paper gives no value
_BATCH_TOKENS = 4_096  # per device in the teacher-forced pass; more if `_ROWS` rows need more
_ROWS = 8


class Observed(NamedTuple):
    """Values of each reference token from one pass, without padding."""

    signal: Float[np.ndarray, "L tokens"]  # the probability that the rule compares with thresholds
    token_ll: Float[np.ndarray, "N tokens"]  # the reference's log-likelihood at each exit


class Estimate(NamedTuple):
    """The estimated cost and quality of each threshold vector."""

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
        dataset: its data; only the validation set is used.
        kind: the kind of rule.
        decoding: the settings for decoding the validation set.
        candidates: the number of threshold vectors to draw.
        segment: the width of a segment of average exit; one vector per segment decodes.
        seed: the seed of the draws.

    Returns:
        The summary of each vector on the front, with its `thresholds`, cheapest first.

    Raises:
        UserError: no sentence fits into memory with these settings.
    """
    Capacity.of(trained.device, trained.model.config, decoding).check()
    decoding = suited(decoding, rule_of(kind, ()))
    observed = observe(trained, dataset.tokens("valid"), kind, decoding.shortlist)
    drawn = draw(observed.signal, candidates, seed)
    estimate = estimate_all(observed, drawn)
    vectors = [
        end_where_all_have(observed.signal, drawn[index]) for index in promising(estimate, segment)
    ]
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
def observe(trained: TrainedModel, file: TokenFile, kind: Kind, shortlist: int = 0) -> Observed:
    """Runs all exits over the references in `file` once, on all devices that hold the model.

    With a shortlist, the confidence of exits above the first is over its words.
    """
    devices = len(trained.devices)
    longest = max(file.header.longest_source, file.header.longest_target)
    batch_tokens = devices * max(_BATCH_TOKENS, _ROWS * longest)
    num_shapes = trained.config.training.num_shapes
    shapes = shapes_for([file], num_shapes, batch_tokens, devices * _ROWS)
    signals, token_lls = [], []
    for batch in one_pass(file, shapes):
        rows = jax.device_put(batch, rows_on(trained.devices))
        signal, token_ll = _observe_batch(trained.model, trained.params, rows, kind, shortlist)
        real = batch.target != PAD
        signals.append(np.asarray(signal)[:, real])
        token_lls.append(np.asarray(token_ll)[:, real])
    return Observed(np.concatenate(signals, axis=1), np.concatenate(token_lls, axis=1))


@partial(jax.jit, static_argnames=("model", "kind", "shortlist"))
def _observe_batch(
    model: Transformer, params: Params, batch: Batch, kind: Kind, shortlist: int
) -> tuple[Float[Array, "L B T"], Float[Array, "N B T"]]:
    target = jnp.asarray(batch.target)
    outputs = forward(model, params, batch)

    def one_exit(log_probs: Array) -> tuple[Array, Array]:
        greatest = jnp.max(log_probs, axis=-1)
        total = jnp.zeros_like(greatest)  # of all tokens, as a logarithm
        if shortlist:
            among = jnp.take_along_axis(log_probs, proposed, axis=-1)
            greatest, total = jnp.max(among, axis=-1), jax.nn.logsumexp(among, axis=-1)
        return jnp.exp(greatest - total), log_likelihood(log_probs, target)

    first = classify(weights_of_exit(outputs.classifiers, 0), outputs.states[0])
    likely = first.at[..., : EOS + 1].set(jnp.inf)  # special tokens are always proposed
    proposed = jax.lax.top_k(likely, min(EOS + 1 + shortlist, likely.shape[-1]))[1]
    confidence, token_ll = map_exits(model, outputs, one_exit)
    if shortlist:
        confidence = confidence.at[0].set(jnp.exp(jnp.max(jax.nn.log_softmax(first), axis=-1)))
    if kind == "confidence" or outputs.exit_logits is None:
        return confidence[:-1], token_ll
    return jnp.moveaxis(jax.nn.sigmoid(outputs.exit_logits), -1, 0), token_ll


def draw(
    signal: Float[np.ndarray, "L tokens"], candidates: int, seed: int
) -> Float[np.ndarray, "vectors L"]:
    """Draws threshold vectors, rounded to five decimals: half from U(0,1)^(N-1), as in the paper.

    The other half are quantiles, at uniform levels, of the probabilities observed at each depth.
    Those of a good model are close to 1, where uniform thresholds hardly separate them.
    """
    level = np.random.default_rng(seed).uniform(size=(candidates, len(signal)))
    quantiles = [np.quantile(row, column) for row, column in zip(signal, level.T, strict=True)]
    uniform = np.arange(candidates) % 2 == 0
    return np.where(uniform[:, None], level, np.stack(quantiles, axis=1)).round(5)


def estimate_all(observed: Observed, thresholds: Float[np.ndarray, "vectors L"]) -> Estimate:
    """Estimates each vector on the observed tokens, as if no state were copied."""
    tokens = np.arange(observed.token_ll.shape[1])
    rows = [exits_of(observed.signal, vector) for vector in thresholds]
    return Estimate(
        average_exit=np.array([exits.mean() for exits in rows]),
        quality=np.array([observed.token_ll[exits - 1, tokens].mean() for exits in rows]),
    )


def exits_of(
    signal: Float[np.ndarray, "L tokens"], thresholds: Float[np.ndarray, " L"]
) -> Int[np.ndarray, " tokens"]:
    """Returns the first depth at which the signal is above its threshold, or N."""
    halts = signal > thresholds[:, None]
    return np.where(halts.any(axis=0), 1 + halts.argmax(axis=0), len(thresholds) + 1)


def end_where_all_have(
    signal: Float[np.ndarray, "L tokens"], thresholds: Float[np.ndarray, " L"]
) -> tuple[float, ...]:
    """The same thresholds, but 0 at the deepest exit of these tokens: so a decoder has no block
    above it."""
    deepest = int(exits_of(signal, thresholds).max())
    return (*map(float, thresholds[: deepest - 1]), *[0.0] * (len(thresholds) + 1 - deepest))


def promising(estimate: Estimate, segment: float) -> list[int]:
    """Returns the index of the best vector in each segment of average exit, lowest first."""
    number = np.floor((estimate.average_exit - 1) / segment).astype(int)
    return [
        int(np.where(number == n, estimate.quality, -np.inf).argmax()) for n in np.unique(number)
    ]


def pareto_front(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the Pareto front of BLEU and average exit, cheapest first."""
    front: list[dict[str, Any]] = []
    for summary in sorted(measured, key=lambda s: (s["average_exit"], -s["bleu"])):
        if not front or summary["bleu"] > front[-1]["bleu"]:
            front.append(summary)
    return front
