# SPDX-License-Identifier: Apache-2.0
"""The training step: neither pieces nor devices change it, and memory does not grow with exits."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.config import Config
from dat_jax.data.batching import Batch
from dat_jax.data.vocabulary import BOS, EOS, PAD
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.state import TrainState
from dat_jax.training.step import (
    TrainStep,
    batch_metrics,
    data_parallel_mesh,
    make_train_step,
    make_validation_step,
)
from tests.tiny import random_params, tiny_config

VOCABULARY = 13
KEY = jax.random.key(7)


def small_config(**sections: dict[str, Any]) -> Config:
    """Two exits and one encoder block: a step of it compiles in seconds, on eight devices too."""
    model = {"num_layers": 2, "encoder_layers": 1} | sections.pop("model", {})
    return tiny_config(model=model, **sections)


def make_batch(rows: int = 16, source: int = 6, target: int = 5) -> Batch:
    """Rows of all lengths, the last one empty."""
    generator = np.random.default_rng(0)

    def side(length: int) -> np.ndarray:
        ids = generator.integers(4, VOCABULARY, (rows, length)).astype(np.int32)
        ends = generator.integers(0, length, rows)
        ids[np.arange(rows), ends] = EOS
        ids[np.arange(length) > ends[:, None]] = PAD
        ids[-1] = PAD
        return ids

    return Batch(side(source), side(target))


def start(config: Config, devices: int = 1) -> tuple[Transformer, TrainState, TrainStep]:
    model = Transformer(config.model, VOCABULARY, VOCABULARY)
    optimizer = make_optimizer(config.optimizer)
    mesh = data_parallel_mesh(jax.devices()[:devices])
    state = TrainState.create(random_params(model), optimizer)
    return model, state, make_train_step(model, optimizer, config.training, mesh)


def run(config: Config, devices: int = 1, steps: int = 3) -> tuple[TrainState, list[float]]:
    _, state, step = start(config, devices)
    losses = []
    for _ in range(steps):
        state, metrics = step(state, make_batch(), KEY)
        losses.append(float(metrics["loss"].total / metrics["loss"].count))
    return state, losses


def assert_same_params(left: TrainState, right: TrainState, tolerance: float) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=tolerance),
        left.params,
        right.params,
    )


def test_one_device_and_eight_give_the_same_losses_and_parameters_with_dropout_too():
    config = small_config(model={"dropout": 0.2})
    one_state, one = run(config)
    eight_state, eight = run(config, devices=8)
    np.testing.assert_allclose(eight, one, rtol=1e-5)
    assert_same_params(one_state, eight_state, 1e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_batch_in_pieces_makes_the_same_update(devices: int):
    config = small_config(model={"dropout": 0.0})
    pieces = dataclasses.replace(
        config, training=dataclasses.replace(config.training, accumulation=4)
    )
    whole_state, whole = run(config)
    pieces_state, in_pieces = run(pieces, devices)
    np.testing.assert_allclose(in_pieces, whole, rtol=1e-5)
    assert_same_params(whole_state, pieces_state, 1e-5)


def test_the_loss_of_a_batch_that_is_seen_again_and_again_goes_down():
    _, losses = run(small_config(optimizer={"learning_rate": 1e-2, "warmup_steps": 1}), steps=60)
    assert losses[-1] < 0.7 * losses[0]


def test_in_bfloat16_the_losses_are_nearly_the_same_and_parameters_stay_float32():
    _, exact = run(small_config())
    state, rounded = run(small_config(model={"dtype": "bfloat16"}))
    np.testing.assert_allclose(rounded, exact, rtol=0.02)
    assert rounded != exact
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_dropout_follows_from_key_and_step():
    config = small_config(model={"dropout": 0.5}, optimizer={"learning_rate": 0.0})
    _, state, step = start(config)
    losses = []
    for _ in range(2):
        state, metrics = step(state, make_batch(), KEY)
        losses.append(float(metrics["loss"].total))
    _, fresh, _ = start(config)
    _, again = step(fresh, make_batch(), KEY)
    _, fresh, _ = start(config)
    _, other_key = step(fresh, make_batch(), jax.random.key(8))
    assert float(again["loss"].total) == losses[0]
    assert losses[1] != losses[0]
    assert float(other_key["loss"].total) != losses[0]


def test_the_loss_is_equation_4_for_every_weighting():
    batch = jax.tree.map(jnp.asarray, make_batch())
    model = Transformer(small_config().model, VOCABULARY, VOCABULARY)
    params = random_params(model)
    inputs = jnp.insert(batch.target[:, :-1], 0, BOS, axis=1)
    logits = model.apply({"params": params}, batch.source, batch.source != PAD, inputs)
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    target = np.asarray(batch.target)
    token_ll = np.take_along_axis(log_probs, target[None, :, :, None], axis=3)[..., 0]
    sentence_ll = np.where(target != PAD, token_ll, 0).sum(axis=(1, 2))  # LL^n
    depth = np.arange(1, len(sentence_ll) + 1)
    omegas = {
        "1": depth**0.0,
        "n": depth,
        "sqrt_n": depth**0.5,
        "1/sqrt_n": depth**-0.5,
        "1/n": 1 / depth,
    }
    for name, omega in omegas.items():
        config = small_config(training={"loss_weights": name, "label_smoothing": 0.0})
        metrics = batch_metrics(model, config.training, params, batch, dropout_key=None)
        expected = -(omega * sentence_ll).sum() / omega.sum()
        np.testing.assert_allclose(float(metrics["loss"].total), expected, rtol=1e-5)
        np.testing.assert_allclose(np.asarray(metrics["nll"].total), -sentence_ll, rtol=1e-5)
        assert int(metrics["loss"].count) == (target != PAD).sum()


def test_validation_is_the_training_loss_without_dropout():
    config = small_config(model={"dropout": 0.0})
    model, state, step = start(config)
    validate = make_validation_step(model, config.training, data_parallel_mesh(jax.devices()[:1]))
    before = validate(state.params, make_batch())
    _, trained = step(state, make_batch(), KEY)
    np.testing.assert_allclose(float(before["loss"].total), float(trained["loss"].total), rtol=1e-6)


def temporary_bytes(num_layers: int, exits: str) -> int:
    """What the compiler says that a training step needs beside its arguments and results."""
    config = small_config(
        model={
            "num_layers": num_layers,
            "exits": exits,
            "decoder_dim": 16,
            "decoder_ff_dim": 16,
        }
    )
    model = Transformer(config.model, 4_000, 4_000)
    optimizer = make_optimizer(config.optimizer)
    step = make_train_step(model, optimizer, config.training, data_parallel_mesh(jax.devices()[:1]))
    shape = jax.ShapeDtypeStruct
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda k: TrainState.create(init_params(model, k), optimizer), key)
    tokens = shape((64, 16), jnp.int32)
    analysis = jax.jit(step).lower(state, Batch(tokens, tokens), key).compile().memory_analysis()
    return analysis.temp_size_in_bytes


@pytest.mark.slow
def test_the_memory_of_the_losses_does_not_grow_with_the_number_of_exits():
    """All exits of 6 blocks: at most 1.3 times one block's need, plus what 5 more blocks need."""
    blocks = temporary_bytes(6, "last") - temporary_bytes(1, "last")
    one_exits_logits = 64 * 16 * 4_000 * 4
    assert temporary_bytes(1, "all") > one_exits_logits
    assert temporary_bytes(6, "all") <= 1.3 * temporary_bytes(1, "all") + blocks
