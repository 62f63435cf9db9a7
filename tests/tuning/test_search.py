# SPDX-License-Identifier: Apache-2.0
"""Tuning: what one pass observes, how threshold vectors are scored and chosen, and the front."""

import dataclasses
import functools
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from dat_jax import flops
from dat_jax.config import Config
from dat_jax.data.batching import Batch
from dat_jax.data.dataset import Dataset
from dat_jax.data.tokens import TokenFile
from dat_jax.data.vocabulary import BOS, EOS
from dat_jax.decoding.trained import TrainedModel, mesh_of
from dat_jax.errors import UserError
from dat_jax.exits.parsing import Policy
from dat_jax.exits.questions import Block, Plan, Rule
from dat_jax.exits.rules import Confidence, Fixed, Margin, Similarity, TokenGeometric
from dat_jax.exits.thresholds import Thresholded
from dat_jax.model.transformer import Transformer
from dat_jax.runs.workdir import Run, make_model
from dat_jax.tuning import observe as observing
from dat_jax.tuning import search
from dat_jax.tuning.fronts import load_front, resolve_policy, save_front
from dat_jax.tuning.observe import Observed, observe
from dat_jax.tuning.search import (
    Estimate,
    draw,
    end_where_all_have,
    estimate_all,
    exits_of,
    pareto_front,
    promising,
    tune,
)
from dat_jax.types import Params
from tests.decoding.plain_rules import choosing
from tests.tiny import random_params, tiny_config

CONFIG = tiny_config(
    data={"source": "generated:200", "vocabulary_size": 150, "max_length": 20},
    model={"exit_head": "token_geometric"},
    decoding={"beam_size": 1, "max_length_ratio": 0.5, "max_length_extra": 3},
)
N = CONFIG.model.decoder_layers


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Run(tmp_path_factory.mktemp("data")).prepare(CONFIG)


@pytest.fixture(scope="module")
def trained(dataset: Dataset) -> TrainedModel:
    """A model with random parameters."""
    return with_random_parameters(CONFIG, dataset)


def with_random_parameters(config: Config, dataset: Dataset) -> TrainedModel:
    vocabularies = dataset.vocabularies
    model = make_model(config, vocabularies)
    return TrainedModel(config, model, random_params(model), vocabularies, (0,))


def sentences(file: TokenFile) -> list[tuple[np.ndarray, np.ndarray]]:
    ends = file.offsets
    rows = [file.tokens[ends[i] : ends[i + 1]].astype(np.int32) for i in range(len(ends) - 1)]
    return list(zip(rows[::2], rows[1::2], strict=True))


@functools.partial(jax.jit, static_argnums=0)
def forward(
    model: Transformer, params: Params, source: np.ndarray, inputs: np.ndarray
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-probabilities [N, T, V], probabilities to halt [T, N-1] and states [N, T, D] of one
    sentence."""
    mask = jnp.ones(source.shape, bool)

    def run(model: Transformer) -> tuple[jax.Array, jax.Array]:
        memory = model.encode(source, mask)
        states = model.states(inputs, memory, mask)
        return model.exit_logits(memory, mask, states), states

    variables = {"params": params}
    logits = model.apply(variables, source, mask, inputs)
    halting, states = model.apply(variables, method=run)
    return jax.nn.log_softmax(logits)[:, 0], jax.nn.sigmoid(halting)[0], states[:, 0]


def signal_of(
    kind: type[Thresholded], log_probs: np.ndarray, halting: np.ndarray, states: np.ndarray
) -> np.ndarray:
    """The signal [L, T] of one sentence by the definition of the rule."""
    if kind is TokenGeometric:
        return halting.T
    if kind is Similarity:
        unit = states / np.sqrt(np.sum(states**2, axis=-1, keepdims=True))
        return np.sum(unit[1:-1] * unit[:-2], axis=-1)
    if kind is Confidence:
        return np.exp(log_probs[:-1].max(axis=-1))
    ranked = np.sort(np.exp(log_probs[:-1, :, EOS:]), axis=-1)
    return ranked[..., -1] - ranked[..., -2]


@pytest.mark.parametrize(
    ("kind", "shortlist"),
    [
        (Confidence, 0),
        (Confidence, 3),
        (Margin, 0),
        (Margin, 3),
        (Similarity, 0),
        (TokenGeometric, 0),
    ],
)
def test_observe_equals_a_forward_pass_per_sentence(
    trained: TrainedModel, dataset: Dataset, kind: type[Thresholded], shortlist: int
):
    check_observed(trained, dataset, kind, shortlist)


def test_an_impossible_shortlist_is_refused_before_work(
    trained: TrainedModel, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr("dat_jax.tuning.search.observe")
    decoding = dataclasses.replace(CONFIG.decoding, beam_size=2, shortlist=3)
    with pytest.raises(UserError, match="shortlist is 3: with beam_size 2"):
        tune(trained, dataset, "confidence", decoding)


def test_a_shortlist_is_that_of_the_first_exit_by_its_own_classifier(dataset: Dataset):
    own = dataclasses.replace(CONFIG.model, classifiers="per_exit")
    config = dataclasses.replace(CONFIG, model=own)
    check_observed(with_random_parameters(config, dataset), dataset, Confidence, shortlist=3)


def check_observed(
    trained: TrainedModel, dataset: Dataset, kind: type[Thresholded], shortlist: int
) -> None:
    """What is observed equals a forward pass for each of some sentences."""
    file = dataset.tokens("valid")
    observed, pairs = observe(trained, file, kind, shortlist), sentences(file)
    assert observed.token_ll.shape == (N, sum(len(target) for _, target in pairs))
    columns = np.vstack([observed.signal, observed.token_ll, observed.source_length, observed.step])
    columns = columns.T
    different = {tuple(column) for column in np.round(columns, 4).tolist()}
    assert len(different) > 20

    for source, target in pairs[:3]:
        inputs = np.asarray([[BOS, *target[:-1]]])
        outputs = forward(trained.model, trained.params, source[None], inputs)
        log_probs, halting, states = map(np.array, outputs)
        token_ll = log_probs[:, np.arange(len(target)), target]
        if shortlist:
            log_probs = choosing(log_probs, shortlist)
        signal = signal_of(kind, log_probs, halting, states)
        steps = np.arange(1, len(target) + 1)
        for expected in np.vstack([signal, token_ll, np.full(len(target), len(source)), steps]).T:
            distance = np.abs(columns - expected).max(axis=1).min()
            assert distance < 1e-4


def test_several_devices_observe_the_same_as_one(
    trained: TrainedModel, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
):
    file, rows = dataset.tokens("valid"), []
    observe_batch = observing._observe_batch

    def observed_batch(model: Transformer, params: Params, batch: Batch, *how: Any) -> Any:
        rows.append({shard.data.shape[0] for shard in batch.target.addressable_shards})
        assert batch.target.shape[0] == 8 * sum(rows[-1])
        return observe_batch(model, params, batch, *how)

    monkeypatch.setattr(observing, "_observe_batch", observed_batch)
    on_all = NamedSharding(mesh_of(jax.devices()), PartitionSpec())
    everywhere = dataclasses.replace(trained, params=jax.device_put(trained.params, on_all))
    shared = observe(everywhere, file, Confidence, shortlist=0)
    assert len(rows) > 0
    monkeypatch.undo()
    alone = observe(trained, file, Confidence, shortlist=0)
    ordered = [
        np.vstack([each.signal, each.token_ll])[:, np.argsort(each.token_ll[0])]
        for each in (alone, shared)
    ]
    np.testing.assert_allclose(*ordered, atol=1e-4)


def test_tokens_of_a_sentence_follow_one_another(trained: TrainedModel, dataset: Dataset):
    file = dataset.tokens("valid")
    observed = observe(trained, file, Confidence, shortlist=0)
    starts = [*np.flatnonzero(observed.step == 1), len(observed.step)]
    found = []
    for start, end in itertools.pairwise(starts):
        (source_length,) = set(observed.source_length[start:end].tolist())
        assert observed.step[start:end].tolist() == list(range(1, end - start + 1))
        found.append((source_length, end - start))
    assert sorted(found) == sorted((len(source), len(target)) for source, target in sentences(file))


def seen(signal: np.ndarray, first: int = 1) -> Observed:
    """Signals from depth `first` on of one sentence, and likelihoods that do not matter."""
    token_ll = np.zeros((len(signal) + first, signal.shape[1]))
    steps = np.arange(1, signal.shape[1] + 1)
    return Observed(signal, first, token_ll, np.full(len(steps), 7), steps)


def ended(observed: Observed, thresholds: list[float]) -> tuple[float, ...]:
    vector = np.asarray(thresholds)
    return end_where_all_have(observed, exits_of(observed, vector), vector)


def test_exits_of_equals_the_rule():
    generator = np.random.default_rng(0)
    probability = generator.uniform(size=(N - 1, 40)).astype(np.float32)
    plan, thresholds = Plan(jnp.full(40, N), jnp.zeros((40, 0))), (0.7, 0.4)
    logits = jnp.asarray(np.log(probability / (1 - probability)))
    for n in (2, 1):
        block = Block(jnp.full(40, n), logits[0], logits[0], logits[n - 1])
        plan = TokenGeometric(thresholds).after_block(block, plan)
    exits = exits_of(seen(probability), np.asarray(thresholds))
    np.testing.assert_array_equal(exits, plan.exit_at)
    assert set(exits) == {1, 2, 3}


def test_exits_count_from_the_first_depth_with_a_threshold():
    observed = seen(np.asarray([[0.9, 0.1, 0.1], [0.9, 0.8, -0.1]]), first=2)
    assert exits_of(observed, np.asarray([0.5, 0.5])).tolist() == [2, 3, 4]
    assert exits_of(observed, np.asarray([0.5, 0.0])).tolist() == [2, 3, 3]
    assert ended(observed, [0.0, 0.5]) == (0.0, 0.0)
    assert ended(observed, [0.5, 0.5]) == (0.5, 0.5)


def test_half_of_the_vectors_are_uniform_and_half_are_observed_quantiles():
    signal = np.stack([np.linspace(0.9, 1.0, 101), np.linspace(0.2, 0.4, 101)])
    drawn = draw(signal, 2_000, seed=0)
    uniform, quantiles = drawn[::2], drawn[1::2]
    assert drawn.shape == (2_000, 2)
    np.testing.assert_allclose(
        np.quantile(uniform, [0.1, 0.5, 0.9], axis=0)[:, 0], [0.1, 0.5, 0.9], atol=0.05
    )
    assert quantiles[:, 0].min() >= 0.9
    second = quantiles[:, 1][quantiles[:, 1] > 0]
    assert 0.2 <= second.min() <= 0.201
    assert 0.399 <= second.max() <= 0.4
    exits = np.array([exits_of(seen(signal), vector).mean() for vector in quantiles])
    assert exits.min() < 1.2
    assert exits.max() > 2.5
    np.testing.assert_array_equal(draw(signal, 2_000, seed=0), drawn)
    assert (draw(signal, 2_000, seed=1) != drawn).any()


def test_the_deepest_depth_is_drawn_too():
    """From the second depth with a signal to the last, each as often."""
    drawn = draw(np.full((3, 5), 0.5), 3_000, seed=0)
    for half in (drawn[::2], drawn[1::2]):
        deepest = [Confidence(tuple(vector)).deepest(4) for vector in half.tolist()]
        assert pytest.approx(Counter(deepest), abs=70) == {2: 500, 3: 500, 4: 500}


def test_an_estimate_is_the_mean_over_tokens_at_their_exits(trained: TrainedModel):
    observed = seen(np.array([[0.9, 0.1, 0.1], [0.0, 0.8, 0.2]]))
    token_ll = np.array([[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0], [-7.0, -8.0, -9.0]])
    observed = observed._replace(token_ll=token_ll)
    vectors = np.array([[0.5, 0.5], [0.5, 0.1], [0.0, 0.0], [1.0, 1.0]])
    estimates = estimate_all(trained.model, observed, Confidence, vectors, shortlist=4)
    quality = [(-1 - 5 - 9) / 3, (-1 - 5 - 6) / 3, -2, -8]
    np.testing.assert_allclose([x.quality for x in estimates], quality)

    def cost(exits: list[int], rule: Rule) -> int:
        sizes = trained.model.config, trained.model.target_vocabulary_size
        return flops.translation(*sizes, 7, np.array(exits), rule, shortlist=4)

    for estimate, exits in zip(estimates, [[1, 2, 3], [1, 2, 2], [1] * 3, [3] * 3], strict=True):
        expected = cost(exits, estimate.rule) / cost([3, 3, 3], Fixed(3))
        assert estimate.cost == pytest.approx(expected)
    assert estimates[2].cost < estimates[1].cost < estimates[0].cost < 1 < estimates[3].cost


def test_thresholds_are_zero_once_all_observed_tokens_have_exited():
    signal = seen(np.asarray([[0.1, 0.6], [0.5, 0.9], [0.4, 0.2]]))
    assert ended(signal, [0.5, 0.4, 0.3]) == (0.5, 0.0, 0.0)
    assert ended(signal, [0.5, 0.7, 0.3]) == (0.5, 0.7, 0.0)
    assert ended(signal, [0.5, 0.7, 0.45]) == (0.5, 0.7, 0.45)
    assert ended(signal, [0.0, 0.7, 0.45]) == (0.0, 0.0, 0.0)


def test_estimated_rules_end_where_all_observed_tokens_have_exited(trained: TrainedModel):
    observed = seen(np.asarray([[0.1, 0.6], [0.5, 0.9]]))
    vectors = np.asarray([[0.5, 0.4], [0.05, 0.7], [0.5, 0.7], [0.0, 0.45]])
    estimates = estimate_all(trained.model, observed, Confidence, vectors, shortlist=0)
    thresholds = [x.rule.thresholds for x in estimates]
    assert thresholds == [(0.5, 0.0), (0.0, 0.0), (0.5, 0.7), (0.0, 0.0)]


def test_each_segment_keeps_its_best():
    costs = [0.31, 0.38, 0.45, 0.89, 0.86, 0.87, 1.13]
    qualities = [-5.0, -4.0, -3.0, -2.0, -1.0, -1.5, -7.0]
    rules = [Confidence((float(number), 0.5)) for number in range(len(costs))]
    estimates = [Estimate(*each) for each in zip(rules, costs, qualities, strict=True)]
    assert promising(estimates, segment=0.1) == [rules[1], rules[2], rules[4], rules[6]]
    assert promising(estimates, segment=5.0) == [rules[4]]


def test_the_front_drops_dominated_points():
    points = [(1.0, 10.0), (1.5, 9.0), (2.0, 20.0), (2.0, 15.0), (3.0, 20.0), (2.5, 21.0)]
    measured = [{"flops_per_token": cost, "bleu": bleu} for cost, bleu in points]
    front = [(s["flops_per_token"], s["bleu"]) for s in pareto_front(measured)]
    assert front == [(1.0, 10.0), (2.0, 20.0), (2.5, 21.0)]


def test_tuning_measures_a_front_on_validation_data(
    trained, dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    splits = set[str]()

    def spy_on(read: Any) -> Any:
        return lambda self, split: splits.add(split) or read(self, split)

    for name in ("text", "tokens"):
        monkeypatch.setattr(Dataset, name, spy_on(getattr(Dataset, name)))
    front = tune(trained, dataset, "confidence", CONFIG.decoding, candidates=50, segment=0.2)
    assert splits == {"valid"}
    save_front(Run(tmp_path), "confidence", front)
    assert load_front(Run(tmp_path), "confidence") == json.loads(json.dumps(front))
    assert front
    for summary in front:
        assert summary["kind"] == "confidence"
        assert len(summary["thresholds"]) == N - 1
        assert summary["sentences"] == len(dataset.text("valid")[0])
        assert summary["policy"].startswith("confidence:")


@pytest.mark.parametrize(
    ("kind", "choices"),
    [("patience", N), ("schedule", N * (N + 1) // 2), ("margin", None), ("similarity", None)],
)
def test_every_kind_is_tuned_and_found_again(
    trained: TrainedModel,
    dataset: Dataset,
    kind: str,
    choices: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    decoded = []

    def evaluated(_: Any, __: Any, policy: Policy, *___: Any) -> tuple[None, dict[str, Any]]:
        """Puts every rule on the front, so that none has to be decoded with."""
        decoded.append(policy.name)
        figures = dict.fromkeys(("average_exit", "flops_per_token", "bleu"), len(decoded))
        return None, {"policy": policy.name} | figures

    monkeypatch.setattr(search, "evaluate", evaluated)
    front = tune(trained, dataset, kind, CONFIG.decoding, candidates=50)
    assert len(set(decoded)) == len(decoded) == (choices or len(front)) > 1
    assert all(name.startswith(f"{kind}:") for name in decoded)
    save_front(Run(tmp_path), kind, front)
    found = resolve_policy("tuned:AE<=2", CONFIG.model, Run(tmp_path))
    assert str(found.rule) == decoded[1]
