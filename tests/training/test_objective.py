# SPDX-License-Identifier: Apache-2.0
"""The objective equals sentence-by-sentence computation with the plain reference model."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.config import Config
from dat_jax.data.batching import Batch
from dat_jax.data.vocabulary import BOS, EOS, PAD
from dat_jax.exits.sampling import sample_exits
from dat_jax.metrics import Metrics
from dat_jax.model.transformer import Transformer
from dat_jax.training.objective import aligned, mixed
from dat_jax.types import Params
from tests.model import reference
from tests.tiny import random_params, tiny_config

N, B, S, T, VOCABULARY = 3, 7, 4, 5, 9
KEY = jax.random.key(7)
SMOOTHING = 0.1


def small_config(**sections: dict[str, Any]) -> Config:
    """Three exits and one encoder block."""
    return tiny_config(model={"encoder_layers": 1} | sections.pop("model", {}), **sections)


def model_of(config: Config) -> Transformer:
    return Transformer(config.model, VOCABULARY, VOCABULARY)


def make_batch() -> Batch:
    """Rows of varied lengths, the last one empty."""
    generator = np.random.default_rng(0)

    def side(lengths: list[int], longest: int) -> np.ndarray:
        ids = np.full((B, longest), PAD, np.int32)
        for row, length in enumerate(lengths):
            if length:
                ids[row, :length] = [*generator.integers(4, VOCABULARY, length - 1), EOS]
        return ids

    return Batch(side([4, 1, 2, 4, 3, 2, 0], S), side([5, 3, 4, 1, 5, 2, 0], T))


BATCH = make_batch()
TOKENS = 20


def sentences() -> list[tuple[int, list[int], list[int], list[int]]]:
    """Row, source, decoder inputs and target of each non-empty sentence."""
    rows = []
    for row, (source, target) in enumerate(zip(*BATCH, strict=True)):
        source, target = source[source != PAD].tolist(), target[target != PAD].tolist()
        if target:
            rows.append((row, source, [BOS, *target[:-1]], target))
    assert sum(len(target) for *_, target in rows) == TOKENS
    return rows


def metrics_of(model: Transformer, configs: list[Config], params: Params) -> list[Metrics]:
    """The metrics of several configs of one model, computed in one program."""
    return jax.jit(lambda params: [aligned(model, c, params, BATCH, None) for c in configs])(params)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum())


def smoothed(log_probs: np.ndarray, y: int) -> float:
    """The log-likelihood of the reference token y under label smoothing."""
    return (1 - SMOOTHING) * log_probs[y] + SMOOTHING * log_probs.mean()


@pytest.mark.parametrize("exits", ["all", "last"])
def test_the_aligned_loss_equals_equation_4_for_every_weighting(exits):
    model = model_of(small_config(model={"exits": exits}))
    params = random_params(model)
    depth = np.asarray(model.config.exit_depths)
    sentence_ll, smoothed_ll = np.zeros((2, len(depth)))  # LL^n, and with label smoothing
    for _, source, inputs, target in sentences():
        logits = reference.logits(model.config, params, source, inputs)
        for n in range(len(depth)):
            for t, y in enumerate(target):
                log_probs = log_softmax(logits[n, t])
                sentence_ll[n] += log_probs[y]
                smoothed_ll[n] += smoothed(log_probs, y)
    omegas = {
        "1": depth**0.0,
        "n": depth,
        "sqrt_n": depth**0.5,
        "1/sqrt_n": depth**-0.5,
        "1/n": 1 / depth,
    }
    configs = [
        small_config(
            model={"exits": exits},
            training={"loss_weights": name, "label_smoothing": SMOOTHING},
        )
        for name in omegas
    ]
    for omega, metrics in zip(omegas.values(), metrics_of(model, configs, params), strict=True):
        expected = -(omega * smoothed_ll).sum() / omega.sum()
        np.testing.assert_allclose(metrics["loss"].total, expected, rtol=1e-5)
        np.testing.assert_allclose(metrics["nll"].total, -sentence_ll, rtol=1e-5)
        assert metrics["loss"].count == TOKENS
        np.testing.assert_array_equal(metrics["nll"].count, TOKENS)


@pytest.mark.parametrize(
    ("classifiers", "norm", "sampling"),
    [
        ("shared", "post", "per_token"),
        ("shared", "pre", "per_sequence"),
        ("per_exit", "post", "per_token"),
    ],
)
def test_the_mixed_loss_equals_equation_5_for_the_drawn_exits(classifiers, norm, sampling):
    samples = 2
    config = small_config(
        model={"classifiers": classifiers, "norm": norm},
        training={
            "mode": "mixed",
            "exit_samples": samples,
            "exit_sampling": sampling,
            "label_smoothing": SMOOTHING,
        },
    )
    model = model_of(config)
    params = random_params(model)
    metrics = jax.jit(functools.partial(mixed, model, config))(params, BATCH, KEY)

    _, exit_key = jax.random.split(KEY)
    drawn = np.asarray(sample_exits(exit_key, B * samples, T, N, sampling))
    loss, nll, right, count = 0.0, np.zeros(N), np.zeros(N), np.zeros(N)
    plain = reference.in_float64(params)
    for row, source, inputs, target in sentences():
        memory = reference.encode(model.config, plain, source)
        for sample in range(samples):
            depths = drawn[row * samples + sample, : len(target)]
            states = reference.decode(model.config, plain, memory, inputs, depths)
            for t, (n, y) in enumerate(zip(depths - 1, target, strict=True)):
                log_probs = log_softmax(reference.classify(model.config, plain, n, states[n][t]))
                loss -= smoothed(log_probs, y) / samples
                nll[n] -= log_probs[y]
                right[n] += log_probs.argmax() == y
                count[n] += 1

    assert count.min() > 0 and count.sum() == samples * TOKENS
    np.testing.assert_allclose(metrics["loss"].total, loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"].count, TOKENS)
    np.testing.assert_allclose(metrics["nll"].total, nll, rtol=1e-5)
    np.testing.assert_array_equal(metrics["accuracy"].total, right)
    for name in ("nll", "accuracy"):
        np.testing.assert_array_equal(metrics[name].count, count)


@pytest.mark.parametrize("objective", [aligned, mixed])
def test_dropout_applies_to_encoder_and_decoder(objective):
    """Dropped parts of a token's embedding get no gradient."""
    config = small_config(model={"dropout": 0.5})
    model = model_of(config)

    def loss(params: Params) -> jax.Array:
        return jnp.asarray(objective(model, config, params, BATCH, KEY)["loss"].total)

    gradient = jax.jit(jax.grad(loss))(random_params(model))
    for part, tokens in (
        ("source_embedding", BATCH.source),
        ("target_embedding", BATCH.target),
    ):
        seen = np.setdiff1d(tokens, [PAD, EOS])
        dropped = np.asarray(gradient[part]["table"])[seen] == 0
        assert 0 < dropped.mean() < 0.5, part  # most tokens occur several times


HEADS = ["sequence_multinomial", "token_multinomial", "token_geometric"]
PENALTY, SIGMA = 0.29, 1.5


def exit_distribution(head: str, logits: np.ndarray) -> np.ndarray:
    """q of one token or sentence by equations 8, 11 and 13."""
    if head != "token_geometric":
        return np.exp(logits) / np.exp(logits).sum()
    halts = 1 / (1 + np.exp(-logits))
    passed = [math.prod(1 - halts[:n]) for n in range(N)]
    return np.array([*(halts[n] * passed[n] for n in range(N - 1)), passed[N - 1]])


def token_oracle(scores: np.ndarray, t: int, sigma: float) -> int:
    """The best depth of token t from the scores [N, T] of one sentence (equations 14 to 17)."""

    def smoothed(n: int) -> float:
        others = range(scores.shape[1])
        return sum(math.exp(-((t - other) ** 2) / sigma) * scores[n, other] for other in others)

    values = [(smoothed(n) if sigma else scores[n, t]) - PENALTY * (n + 1) for n in range(N)]
    return 1 + values.index(max(values))


def sequence_oracle(scores: np.ndarray, reduction: str) -> int:
    """The best depth of one sentence from the scores [N, T] of its tokens (equations 9 and 10)."""
    length = scores.shape[1] if reduction == "mean" else 1
    values = [scores[n].sum() / length - PENALTY * (n + 1) for n in range(N)]
    return 1 + values.index(max(values))


def expected_exit_metrics(config: Config, model: Transformer, params: Params) -> dict[str, float]:
    """The four metrics of an exit head by definition, sentence by sentence."""
    head, exits = config.model.exit_head, config.exit
    plain = reference.in_float64(params)
    loss, agrees, oracle_sum, expected_sum, count = 0.0, 0, 0, 0.0, 0
    oracles = set()
    for _, source, inputs, target in sentences():
        memory = reference.encode(model.config, plain, source)
        states = reference.decode(model.config, plain, memory, inputs)
        exit_logits = reference.exit_logits(model.config, plain, memory, states)
        scores = np.zeros((N, len(target)))
        for n in range(N):
            for t, y in enumerate(target):
                logits, last = (
                    reference.classify(model.config, plain, m, states[m][t]) for m in (n, N - 1)
                )
                scores[n, t] = {
                    "likelihood": log_softmax(logits)[y],
                    "correctness": logits.argmax() == y,
                    "agreement": logits.argmax() == last.argmax(),
                }[exits.oracle]
        of_sequence = head == "sequence_multinomial"
        for t in range(1 if of_sequence and exits.sequence_loss == "once" else len(target)):
            if of_sequence:
                oracle, logits = sequence_oracle(scores, exits.sequence_oracle), exit_logits
            else:
                oracle = token_oracle(scores, t, exits.oracle_smoothing)
                logits = exit_logits[t]
            q = exit_distribution(head, logits)
            loss -= math.log(q[oracle - 1])
            agrees += int(1 + q.argmax() == oracle)
            oracle_sum += oracle
            expected_sum += (q * np.arange(1, N + 1)).sum()
            count += 1
            oracles.add(oracle)
    # A constant oracle would prove little; but of these sentences none agrees before the last exit.
    assert len(oracles) > 1 or (of_sequence and exits.oracle == "agreement")
    return {
        "exit_loss": loss / TOKENS,
        "exit_accuracy": agrees / count,
        "oracle_average_exit": oracle_sum / count,
        "expected_average_exit": expected_sum / count,
    }


CASES = [
    (head, {"oracle": oracle, **own})
    for oracle in ("likelihood", "correctness", "agreement")
    for head, own in [
        ("sequence_multinomial", {"sequence_oracle": "mean", "sequence_loss": "per_token"}),
        ("sequence_multinomial", {"sequence_oracle": "sum", "sequence_loss": "once"}),
        ("token_multinomial", {"oracle_smoothing": SIGMA}),
        ("token_geometric", {"oracle_smoothing": 0.0}),
    ]
]


def with_head(head: str, **exits: Any) -> Config:
    return small_config(
        model={"exit_head": head, "halting_weights": "per_depth"},
        exit={"exit_penalty": PENALTY} | exits,
    )


@functools.cache
def metrics_with_head(head: str) -> list[Metrics]:
    """The metrics of the cases with this head, in order."""
    configs = [with_head(head, **exits) for case, exits in CASES if case == head]
    model = model_of(configs[0])
    return metrics_of(model, configs, random_params(model))


@pytest.mark.parametrize(("head", "exits"), CASES)
def test_the_exit_loss_equals_minus_log_q_of_the_oracle(head, exits):
    config = with_head(head, **exits)
    model = model_of(config)
    index = [own for case, own in CASES if case == head].index(exits)
    metrics = metrics_with_head(head)[index]
    expected = expected_exit_metrics(config, model, random_params(model))
    for name, value in expected.items():
        total, count = metrics[name]
        np.testing.assert_allclose(total / count, value, rtol=1e-4, err_msg=name)
    assert metrics["exit_loss"].count == TOKENS


@functools.cache
def gradient_of_the_exit_loss(head: str, trains: str) -> Params:
    config = with_head(head, trains=trains, oracle="likelihood")
    model = model_of(config)

    def exit_loss(params: Params) -> jax.Array:
        return jnp.asarray(aligned(model, config, params, BATCH, None)["exit_loss"].total)

    gradient = jax.jit(jax.grad(exit_loss))(random_params(model))
    return jax.tree.map(np.asarray, gradient)


def test_the_exit_loss_trains_the_whole_model_or_only_the_head():
    everything = gradient_of_the_exit_loss("token_geometric", "model_and_head")
    head_only = gradient_of_the_exit_loss("token_geometric", "head")
    for leaf in jax.tree.leaves(head_only | {"exit_head": {}}):
        np.testing.assert_array_equal(leaf, 0)
    for name in ("kernel", "bias"):
        assert (head_only["exit_head"][name] != 0).all()
        np.testing.assert_allclose(
            head_only["exit_head"][name], everything["exit_head"][name], rtol=1e-4
        )
    for part in ("source_embedding", "target_embedding", "encoder"):
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(everything[part])) > 0.01
    for block in range(N - 1):
        assert (
            np.abs(
                everything["decoder"]["blocks"]["feed_forward"]["Dense_0"]["kernel"][block]
            ).max()
            > 0.01
        )


def test_no_gradient_of_the_exit_loss_passes_through_the_oracle():
    """Classifiers and the last block, which no halting unit reads, only affect the oracle."""
    gradient = gradient_of_the_exit_loss("token_geometric", "model_and_head")
    np.testing.assert_array_equal(gradient["classifiers"]["table"], 0)
    for leaf in jax.tree.leaves(gradient["decoder"]["blocks"]):
        np.testing.assert_array_equal(leaf[-1], 0)


def test_the_sequence_exit_loss_trains_only_the_encoder():
    gradient = gradient_of_the_exit_loss("sequence_multinomial", "model_and_head")
    for leaf in jax.tree.leaves(gradient["decoder"]):
        np.testing.assert_array_equal(leaf, 0)
    assert np.abs(gradient["source_embedding"]["table"]).max() > 0.01
