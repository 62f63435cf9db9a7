# SPDX-License-Identifier: Apache-2.0
"""The training step: microbatches, devices, phases and memory."""

from functools import cache, partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dat_jax.checkpoints.state import TrainState
from dat_jax.config import Config
from dat_jax.data.batching import Batch
from dat_jax.data.vocabulary import EOS, PAD
from dat_jax.metrics import Mean, Metrics, add
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.training.objective import aligned, mixed
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.sharding import data_parallel_mesh
from dat_jax.training.step import TrainStep, make_train_step, make_validation_step
from dat_jax.types import Params
from tests.tiny import random_params, tiny_config

VOCABULARY = 13
KEY = jax.random.key(7)
SGD = optax.sgd(0.2)  # unlike Adam's, its updates are proportional to the gradients
QUICK = {"learning_rate": 1e-2, "warmup_steps": 1}


def small_config(**sections: dict[str, Any]) -> Config:
    """Two exits and one encoder block, so that a step compiles in seconds even on eight devices."""
    model = {"decoder_layers": 2, "encoder_layers": 1} | sections.pop("model", {})
    return tiny_config(model=model, **sections)


DROPPING = small_config(model={"dropout": 0.2})


def make_batch(rows: int = 16, source: int = 6, target: int = 5) -> Batch:
    """Rows of random lengths, the last one empty."""
    generator = np.random.default_rng(0)

    def side(length: int) -> np.ndarray:
        ids = generator.integers(4, VOCABULARY, (rows, length)).astype(np.int32)
        ends = generator.integers(0, length, rows)
        ids[np.arange(rows), ends] = EOS
        ids[np.arange(length) > ends[:, None]] = PAD
        ids[-1] = PAD
        return ids

    return Batch(side(source), side(target))


@cache
def make_step(
    config: Config, devices: int = 1, optimizer: optax.GradientTransformation | None = None
) -> tuple[Transformer, optax.GradientTransformation, TrainStep]:
    """The model, the optimizer (by default the config's) and the step, compiled once."""
    model = Transformer(config.model, VOCABULARY, VOCABULARY)
    optimizer = optimizer or make_optimizer(config)
    mesh = data_parallel_mesh(jax.devices()[:devices])
    return model, optimizer, make_train_step(model, optimizer, config, mesh)


def start(
    config: Config, devices: int = 1, optimizer: optax.GradientTransformation | None = None
) -> tuple[Transformer, TrainState, TrainStep]:
    """The model, its first state and the training step."""
    model, optimizer, step = make_step(config, devices, optimizer)
    return model, TrainState.create(random_params(model), optimizer), step


@cache
def run(
    config: Config,
    devices: int = 1,
    steps: int = 3,
    optimizer: optax.GradientTransformation | None = None,
) -> tuple[TrainState, list[float]]:
    """The state after some steps on one batch, and their losses; read only."""
    _, state, step = start(config, devices, optimizer)
    losses = []
    for _ in range(steps):
        state, metrics = step(state, make_batch(), KEY)
        losses.append(float(metrics["loss"].total / metrics["loss"].count))
    return state, losses


def assert_learnt_the_same(
    config: Config, left: TrainState, right: TrainState, tolerance: float = 1e-5
) -> None:
    """Asserts equal parameters, each part of which has moved by more than 100 tolerances."""
    first = random_params(Transformer(config.model, VOCABULARY, VOCABULARY))
    for part, before in first.items():
        moves = jax.tree.map(lambda a, b: np.abs(a - b).max(), left.params[part], before)
        assert max(jax.tree.leaves(moves)) > 100 * tolerance, part
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=tolerance),
        left.params,
        right.params,
    )


def test_eight_devices_equal_one():
    config = small_config()
    one_state, one = run(config, optimizer=SGD)
    eight_state, eight = run(config, devices=8, optimizer=SGD)
    np.testing.assert_allclose(eight, one, rtol=1e-5)
    assert_learnt_the_same(config, one_state, eight_state)


def test_microbatches_make_the_same_update():
    """Uses two devices, each with rows of every microbatch."""
    config = small_config(training={"microbatches": 4})
    expected_state, expected = run(small_config(), optimizer=SGD)
    state, losses = run(config, devices=2, optimizer=SGD)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert_learnt_the_same(config, expected_state, state)


def test_the_loss_of_a_repeated_batch_falls():
    _, losses = run(small_config(optimizer=QUICK), steps=60)
    assert losses[-1] < 0.7 * losses[0]


def test_bfloat16_changes_losses_little_and_keeps_float32_parameters():
    _, exact = run(small_config(), optimizer=SGD)
    state, rounded = run(small_config(model={"dtype": "bfloat16"}), optimizer=SGD)
    np.testing.assert_allclose(rounded, exact, rtol=0.02)
    assert rounded != exact
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_dropout_depends_on_key_and_step():
    def loss_at(step: int, key: jax.Array) -> float:
        """The loss of the initial parameters at a step."""
        _, state, train_step = start(DROPPING, optimizer=SGD)
        _, metrics = train_step(state._replace(step=jnp.int32(step)), make_batch(), key)
        return float(metrics["loss"].total)

    first = loss_at(0, KEY)
    assert loss_at(0, KEY) == first
    assert loss_at(1, KEY) != first
    assert loss_at(0, jax.random.key(8)) != first


def test_validation_equals_the_training_loss_without_dropout():
    config = small_config(optimizer=QUICK)
    model, state, step = start(config)
    validate = make_validation_step(model, config, data_parallel_mesh(jax.devices()[:1]))
    before = validate(state.params, make_batch())
    _, trained = step(state, make_batch(), KEY)
    np.testing.assert_allclose(float(before["loss"].total), float(trained["loss"].total), rtol=1e-6)


def test_mixed_training_draws_exits_per_microbatch_and_device():
    config = small_config(training={"mode": "mixed", "microbatches": 2, "exit_samples": 3})
    model, state, step = start(config, devices=2)
    params, batch = jax.tree.map(np.array, state.params), make_batch()
    state, metrics = step(state, batch, KEY)

    key = jax.random.fold_in(KEY, 0)
    evaluate = jax.jit(partial(mixed, model, config))
    half = len(batch.target) // 2
    pieces = [
        evaluate(
            params,
            Batch(*(side[half * device : half * (device + 1)][piece::2] for side in batch)),
            jax.random.fold_in(jax.random.fold_in(key, device), piece),
        )
        for device in range(2)
        for piece in range(2)
    ]
    for name, (total, count) in reduce(add, pieces).items():
        np.testing.assert_allclose(metrics[name].total, total, rtol=1e-5)
        np.testing.assert_allclose(metrics[name].count, count, rtol=1e-6)
    assert len({tuple(piece["nll"].count.tolist()) for piece in pieces}) == 4
    assert changed_parts(state.params, params) == params.keys()


def changed_parts(after: Params, before: Params) -> set[str]:
    """The top-level parts of the parameters, such as exit_head, that changed at all."""

    def differ(new: jax.Array, old: jax.Array) -> bool:
        return bool((np.asarray(new) != np.asarray(old)).any())

    changed = jax.tree.map(differ, after, before)
    return {part for part in after if any(jax.tree.leaves(changed[part]))}


def params_of_steps(config: Config, steps: int = 4) -> tuple[list[Params], list[Metrics]]:
    """The parameters before each step and after the last, and the steps' metrics."""
    _, state, step = start(config)
    params, metrics = [jax.tree.map(np.array, state.params)], []
    for _ in range(steps):
        state, of_step = step(state, make_batch(), KEY)
        params.append(jax.tree.map(np.array, state.params))
        metrics.append(of_step)
    return params, metrics


def test_the_exit_loss_has_weight_zero_before_its_start_step():
    config = small_config(
        model={"exit_head": "token_multinomial"},
        exit={"start_step": 2, "loss_weight": 0.7},
        optimizer=QUICK,
    )
    params, metrics = params_of_steps(config)
    model = Transformer(config.model, VOCABULARY, VOCABULARY)

    @jax.jit
    def gradient_norm(params: Params, alpha: float) -> jax.Array:
        def loss(params: Params) -> jax.Array:
            terms = aligned(model, config, params, make_batch(), None)
            total = terms["loss"].total + alpha * terms["exit_loss"].total
            return total / terms["loss"].count

        return optax.tree.norm(jax.grad(loss)(params))

    for step, alpha in enumerate([0.0, 0.0, 0.7, 0.7]):
        before, after = params[step], params[step + 1]
        still = set() if alpha else {"exit_head"}
        assert changed_parts(after, before) == before.keys() - still
        actual, expected = metrics[step]["gradient_norm"].total, gradient_norm(before, alpha)
        np.testing.assert_allclose(actual, expected, rtol=1e-4)


def head_alone(start_step: int, **optimizer: float) -> Config:
    return small_config(
        model={"exit_head": "token_geometric", "halting_hidden": 5},
        exit={"start_step": start_step, "trains": "head_alone"},
        optimizer=QUICK | optimizer,
    )


@pytest.mark.parametrize("start_step", [0, 2])
def test_head_alone_trains_only_the_head_from_its_start_step(start_step):
    """Without weight decay only a gradient changes parameters. Before, only the model trains."""
    params, _ = params_of_steps(head_alone(start_step))
    for step in range(4):
        changed = changed_parts(params[step + 1], params[step])
        assert changed == (
            {"exit_head"} if step >= start_step else params[0].keys() - {"exit_head"}
        )


def test_a_step_with_only_a_non_finite_gradient_is_skipped_too(
    monkeypatch: pytest.MonkeyPatch,
):
    def summed_gradient(params: Params, *_: Any) -> tuple[Params, Metrics]:
        gradients = jax.tree.map(lambda x: jnp.full_like(x, 1e30), params)  # its norm overflows
        return gradients, {"loss": Mean(jnp.float32(1.5), jnp.float32(1))}

    monkeypatch.setattr("dat_jax.training.step.make_summed_gradient", lambda *_: summed_gradient)
    _, state, step = start(small_config(training={"skip_nonfinite": 1}))
    before = jax.tree.map(np.array, state)
    after, metrics = step(state, make_batch(), KEY)
    assert np.isinf(metrics["gradient_norm"].total)
    assert after.step == 1
    jax.tree.map(np.testing.assert_array_equal, after._replace(step=0), before._replace(step=0))


def test_weight_decay_does_not_change_a_frozen_model():
    params, _ = params_of_steps(head_alone(2, weight_decay=0.1))
    assert changed_parts(params[4], params[2]) == {"exit_head"}


@pytest.mark.parametrize("start_step", [0, 2])
def test_a_frozen_model_has_no_gradient(start_step: int):
    """Clipping and the gradient norm ignore it, and its moments decay."""
    config = head_alone(start_step)
    _, state, step = start(config)
    for _ in range(start_step):
        state, _ = step(state, make_batch(), KEY)
    before = jax.tree.map(np.array, optax.tree.get(state.optimizer_state, "mu"))
    assert changed_parts(before, jax.tree.map(np.zeros_like, before)) == (
        before.keys() - {"exit_head"} if start_step else set()
    )
    state, metrics = step(state, make_batch(), KEY)
    moments = optax.tree.get(state.optimizer_state, "mu")
    faded = jax.tree.map(lambda mu: np.float32(config.optimizer.beta1) * mu, before)
    assert changed_parts(moments, faded) == {"exit_head"}
    head = optax.tree.norm(moments["exit_head"]) / (1 - config.optimizer.beta1)
    np.testing.assert_allclose(metrics["gradient_norm"].total, head, rtol=1e-5)


def temporary_bytes(vocabulary: int, **model_changes: Any) -> int:
    """The compiler's temporary bytes of a training step, without arguments and results."""
    config = small_config(model={"decoder_dim": 16, "decoder_ff_dim": 16} | model_changes)
    model = Transformer(config.model, vocabulary, vocabulary)
    optimizer = make_optimizer(config)
    step = make_train_step(model, optimizer, config, data_parallel_mesh(jax.devices()[:1]))
    shape = jax.ShapeDtypeStruct
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda k: TrainState.create(init_params(model, k), optimizer), key)
    tokens = shape((64, 16), jnp.int32)
    analysis = jax.jit(step).lower(state, Batch(tokens, tokens), key).compile().memory_analysis()
    return analysis.temp_size_in_bytes


@pytest.mark.slow
def test_memory_of_the_losses_does_not_grow_with_the_exits():
    """With 6 exits: at most 1.3 times the need of a one-block model, plus that of 5 more blocks."""
    one = temporary_bytes(4_000, decoder_layers=1)  # with a single exit
    blocks = temporary_bytes(4_000, decoder_layers=6, exits="last") - one
    logits_of_one_exit = 64 * 16 * 4_000 * 4
    assert one > logits_of_one_exit
    assert temporary_bytes(4_000, decoder_layers=6) <= 1.3 * one + blocks


def test_rematerialised_blocks_make_the_same_update_with_dropout():
    kept_state, kept = run(DROPPING, optimizer=SGD)
    again = small_config(model={"dropout": 0.2, "rematerialisation": "blocks"})
    again_state, losses = run(again, optimizer=SGD)
    np.testing.assert_allclose(losses, kept, rtol=1e-5)
    assert_learnt_the_same(again, kept_state, again_state)


def test_rematerialised_blocks_need_less_memory():
    """Both sides keep about as much, so neither may keep what it has."""
    sizes = {"encoder_layers": 6, "encoder_ff_dim": 512, "decoder_layers": 6, "decoder_ff_dim": 512}
    kept = temporary_bytes(VOCABULARY, **sizes)
    assert temporary_bytes(VOCABULARY, **sizes, rematerialisation="blocks") < kept / 2
