# SPDX-License-Identifier: Apache-2.0
"""Tunes exit rules on validation data (paper, section 3.3): the best BLEU for each cost.

As in the paper, draws 10,000 threshold vectors and keeps those with the highest BLEU at each cost.
Unlike the paper, it does not decode with all of them: one teacher-forced pass over the validation
set records the rule's signal and the log-likelihood of each token at each depth, and all vectors
are scored on these. Only the most promising vector of each segment of cost decodes the validation
set. Of a rule whose choices can be listed, such as patience, all decode it. The result is the
Pareto front of the measured BLEU and FLOPs.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from dat_jax import flops
from dat_jax.config import DecodingConfig
from dat_jax.data.dataset import Dataset
from dat_jax.decoding.capacity import Capacity
from dat_jax.decoding.rule_settings import check_shortlist_size, suited
from dat_jax.decoding.trained import TrainedModel
from dat_jax.evaluation.evaluate import evaluate
from dat_jax.exits.parsing import find_rule, parse_policy
from dat_jax.exits.questions import Rule
from dat_jax.exits.rules import Fixed
from dat_jax.exits.thresholds import Thresholded
from dat_jax.model.transformer import Transformer
from dat_jax.runtime.processes import gather, is_first
from dat_jax.tuning.observe import Observed, observe

CANDIDATES = 10_000  # as in the paper
SEGMENT = 0.1  # of the FLOPs of full depth; the paper gives no value


class Estimate(NamedTuple):
    """The estimated cost and quality of a rule."""

    rule: Thresholded
    cost: float  # FLOPs of the decoder, divided by those of the last exit alone
    quality: float  # mean log-likelihood of the references at their exits


def tune(
    trained: TrainedModel,
    dataset: Dataset,
    kind: str,
    decoding: DecodingConfig,
    candidates: int = CANDIDATES,
    segment: float = SEGMENT,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Tunes a kind of rule and returns the front.

    Args:
        trained: the model.
        dataset: its data; only the validation set is used.
        kind: the kind of rule, of `dat_jax.tuning.fronts.KINDS`.
        decoding: the settings for decoding the validation set.
        candidates: the number of threshold vectors to draw.
        segment: the width of a segment of cost, of which 1 is the cost of full depth; one vector
            per segment decodes.
        seed: the seed of the draws.

    Returns:
        The summary of each rule on the front, cheapest first.

    Raises:
        UserError: the model cannot decode with this kind, or no sentence fits into memory.
    """
    Capacity.of(trained.device, trained.model.config, decoding).check()
    config = trained.model.config
    cls = find_rule(kind, kind, config)
    rules = cls.choices(config.decoder_layers)
    if issubclass(cls, Thresholded):
        rules = _promising_rules(trained, dataset, cls, decoding, candidates, segment, seed)
    measured = []
    for name in tqdm(
        gather([str(rule) for rule in rules])[0],
        desc=f"tuning {kind}",
        unit="rule",
        dynamic_ncols=True,
        leave=False,
        disable=not (is_first() and sys.stderr.isatty()),
    ):
        _, summary = evaluate(trained, dataset, parse_policy(name, config), decoding, "valid")
        measured.append({"kind": kind} | summary)
    return pareto_front(measured)


def _promising_rules(
    trained: TrainedModel,
    dataset: Dataset,
    kind: type[Thresholded],
    decoding: DecodingConfig,
    candidates: int,
    segment: float,
    seed: int,
) -> list[Rule]:
    """Returns the rule with the best estimate in each segment of cost; see `tune`."""
    decoding = suited(decoding, kind(()))
    check_shortlist_size(decoding, trained.model.target_vocabulary_size)
    shortlist = decoding.shortlist
    observed = observe(trained, dataset.tokens("valid"), kind, shortlist)
    drawn = draw(observed.signal, candidates, seed)
    return promising(estimate_all(trained.model, observed, kind, drawn, shortlist), segment)


def draw(
    signal: Float[np.ndarray, "L tokens"], candidates: int, seed: int
) -> Float[np.ndarray, "vectors L"]:
    """Draws threshold vectors, rounded to five decimals: half from U(0,1)^(N-1), as in the paper.

    The other half are quantiles, at uniform levels, of the signals observed at each depth. Those of
    a good model are close to 1, where uniform thresholds hardly separate them. A depth where all
    tokens have exited is drawn too, for a decoder without blocks above it costs less.
    """
    generator = np.random.default_rng(seed)
    level = generator.uniform(size=(candidates, len(signal)))
    quantiles = [np.quantile(row, column) for row, column in zip(signal, level.T, strict=True)]
    uniform = np.arange(candidates) % 2 == 0
    drawn = np.where(uniform[:, None], level, np.stack(quantiles, axis=1))
    kept = generator.integers(1, len(signal), size=(candidates, 1), endpoint=True)
    drawn = np.where(np.arange(len(signal)) < kept, drawn, 0)
    return drawn.clip(0, 1).round(5)  # a cosine may be negative


def estimate_all(
    model: Transformer,
    observed: Observed,
    kind: type[Thresholded],
    thresholds: Float[np.ndarray, "vectors L"],
    shortlist: int,
) -> list[Estimate]:
    """Estimates each vector on the observed tokens, as if no state were copied."""
    num_layers, tokens = observed.token_ll.shape

    def cost(exits: Int[np.ndarray, " tokens"], rule: Rule) -> int:
        sizes = model.config, model.target_vocabulary_size, observed.source_length, observed.step
        return flops.translations(*sizes, exits, rule, shortlist)

    full = cost(np.full(tokens, num_layers), Fixed(num_layers))
    estimates = []
    for vector in thresholds:
        exits = exits_of(observed, vector)
        rule = kind(end_where_all_have(observed, exits, vector))
        quality = observed.token_ll[exits - 1, np.arange(tokens)].mean()
        estimates.append(Estimate(rule, cost(exits, rule) / full, float(quality)))
    return estimates


def exits_of(observed: Observed, thresholds: Float[np.ndarray, " L"]) -> Int[np.ndarray, " tokens"]:
    """Returns the first depth at which the signal is above its threshold or that is 0, or N."""
    halts = (observed.signal > thresholds[:, None]) | (thresholds[:, None] <= 0)
    first, num_layers = observed.first, len(observed.token_ll)
    return np.where(halts.any(axis=0), first + halts.argmax(axis=0), num_layers)


def end_where_all_have(
    observed: Observed, exits: Int[np.ndarray, " tokens"], thresholds: Float[np.ndarray, " L"]
) -> tuple[float, ...]:
    """The same thresholds, but 0 at the deepest of these exits: so a decoder has no block above."""
    kept = int(exits.max()) - observed.first
    return (*map(float, thresholds[:kept]), *[0.0] * (len(thresholds) - kept))


def promising(estimates: Sequence[Estimate], segment: float) -> list[Rule]:
    """Returns the best rule in each segment of cost, cheapest first."""
    best = dict[int, Estimate]()
    for estimate in estimates:
        number = math.floor(estimate.cost / segment)
        if number not in best or estimate.quality > best[number].quality:
            best[number] = estimate
    return [best[number].rule for number in sorted(best)]


def pareto_front(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the Pareto front of BLEU and FLOPs, cheapest first."""
    front: list[dict[str, Any]] = []
    for summary in sorted(measured, key=lambda s: (s["flops_per_token"], -s["bleu"])):
        if not front or summary["bleu"] > front[-1]["bleu"]:
            front.append(summary)
    return front
