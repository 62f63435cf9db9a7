# SPDX-License-Identifier: Apache-2.0
"""Training on several devices: collectives, sharding, and moving a run between devices."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from benchmarks.compiled.programs import training_step
from dat_jax.checkpoints.read import restore
from dat_jax.checkpoints.state import TrainState, place
from dat_jax.checkpoints.write import Checkpoints
from dat_jax.data.batching import Batch
from dat_jax.errors import UserError
from dat_jax.model.transformer import Transformer
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.sharding import data_parallel_mesh, shared_out, whole
from dat_jax.training.step import abstract_state, make_train_step, make_validation_step
from tests.tiny import random_params, tiny_config

VOCABULARY, ROWS, LENGTH = 12, 16, 5
KEY = jax.random.key(7)
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


def make_batch() -> Batch:
    tokens = np.random.default_rng(0).integers(1, VOCABULARY, (2, ROWS, LENGTH))
    return Batch(*tokens.astype(np.int32))


@cache
class Training:
    """A model, its optimizer and its compiled steps on some devices; shared by all tests."""

    def __init__(self, sharding: str, devices: int, mode: str = "aligned") -> None:
        config = tiny_config(
            data={"vocabulary_size": VOCABULARY},
            model={"decoder_layers": 2, "encoder_layers": 1},
            training={
                "batch_tokens": ROWS * LENGTH,
                "microbatches": 2,
                "sharding": sharding,
                "mode": mode,
            },
        )
        self.model = Transformer(config.model, VOCABULARY, VOCABULARY)
        self.optimizer = make_optimizer(config)
        mesh = data_parallel_mesh(jax.devices()[:devices])
        self.config, self.mesh = config, mesh
        self.step = make_train_step(self.model, self.optimizer, config, mesh)
        self.validate = make_validation_step(self.model, config, mesh)
        self.like = abstract_state(self.model, self.optimizer, mesh, config.training.sharding)

    def first(self) -> TrainState:
        """A state with random parameters."""
        return TrainState.create(random_params(self.model), self.optimizer)

    def advance(self, state: TrainState, steps: int = 2) -> tuple[TrainState, list[float]]:
        """The state after more steps, and their losses."""
        losses = []
        for _ in range(steps):
            state, metrics = self.step(state, make_batch(), KEY)
            losses.append(float(metrics["loss"].total / metrics["loss"].count))
        return state, losses


@pytest.mark.parametrize("sharding", ["replicated", "fsdp"])
def test_whole_parameters_are_those_that_were_shared_out(sharding: str):
    """They stay as they are when a step takes the state's memory."""
    training = Training(sharding, 4)
    first = training.first()
    expected = jax.tree.map(np.array, first.params)
    state = place(first, training.like)
    params = whole(state.params)
    state, _ = training.advance(state)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(params))
    assert np.any(whole(state.params)["classifiers"]["table"] != params["classifiers"]["table"])


def collectives(program: str) -> tuple[list[str], list[str]]:
    """The collectives of a compiled program: those outside all loops, and those within loops."""
    parts = {
        re.sub(r"^ENTRY ", "", part).split(" ")[0].lstrip("%"): part
        for part in program.split("\n\n")
    }
    mentions = {
        name: set(re.findall(r"[\w.-]+", part)) & parts.keys() for name, part in parts.items()
    }
    within = {name for part in parts.values() for name in re.findall(r"body=%?([\w.-]+)", part)}
    while below := {inner for name in within for inner in mentions[name]} - within:
        within |= below

    def collectives_in(names: set[str]) -> list[str]:
        pattern = rf" ((?:{'|'.join(COLLECTIVES)})(?:-start)?)\("
        return [name for part in names for name in re.findall(pattern, parts[part])]

    return collectives_in(parts.keys() - within), collectives_in(within)


@pytest.mark.parametrize(
    ("sharding", "mode", "expected"),
    [
        ("replicated", "mixed", {"all-reduce"}),
        ("fsdp", "aligned", {"all-reduce", "all-gather", "reduce-scatter"}),
    ],
)
def test_no_loop_contains_a_collective(sharding, mode, expected):
    training = Training(sharding, 4, mode)
    step = training_step(training.config, training.mesh, LENGTH)
    outside, within = collectives(step.compile().as_text() or "")
    assert within == []
    assert set(outside) == expected


def test_a_collective_within_a_loop_is_detected():
    mesh = data_parallel_mesh(jax.devices()[:4])

    def sums(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda s, y: (s + jax.lax.psum(y, "data"), None), jnp.zeros(3), x)[0]

    spec = PartitionSpec(None, "data")
    program = jax.jit(jax.shard_map(sums, mesh=mesh, in_specs=spec, out_specs=PartitionSpec()))
    outside, within = collectives(program.lower(jnp.zeros((5, 12))).compile().as_text())
    assert (outside, within) == ([], ["all-reduce"])


def assert_same(left: Any, right: Any, tolerance: float = 1e-6) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=tolerance),
        left,
        right,
    )


def test_fsdp_learns_the_same_in_less_memory():
    one, many = Training("replicated", 1), Training("fsdp", 4)
    state, losses = one.advance(one.first())
    shared, same_losses = many.advance(many.first())
    np.testing.assert_allclose(same_losses, losses, rtol=1e-5)
    assert_same(shared, state, 1e-5)
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(shared))
    assert held < 0.3 * sum(leaf.nbytes for leaf in jax.tree.leaves(shared))
    assert jax.tree.map(lambda x: x.sharding, shared) == jax.tree.map(
        lambda x: x.sharding, many.like
    )

    batch = make_batch()
    assert_same(many.validate(shared.params, batch), one.validate(state.params, batch), 1e-4)


def test_a_run_can_move_between_devices_and_shardings(tmp_path: Path):
    """Eight devices, then four with fsdp, then one: each resumes the previous run."""
    plain = Training("replicated", 1)
    expected, losses = plain.advance(plain.first(), 6)
    state, actual = plain.first(), []
    for sharding, devices in (("replicated", 8), ("fsdp", 4), ("replicated", 1)):
        training = Training(sharding, devices)
        if actual:
            restored = restore(tmp_path, training.like)
            assert restored is not None
            jax.tree.map(np.testing.assert_array_equal, restored[0], state)
            state = restored[0]
        state, more = training.advance(state)
        actual += more
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(state, {})
    np.testing.assert_allclose(actual, losses, rtol=1e-4)
    assert_same(state.params, expected.params, 1e-4)


def test_fsdp_shards_the_longest_axis_that_the_devices_divide():
    shapes = [(8, 3, 12), (12, 8), (8, 8), (6, 4, 9), (7, 3), (3,), ()]
    mesh = data_parallel_mesh(jax.devices()[:4])
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    axes = [(None, None, "data"), ("data",), ("data",), (None, "data"), (), (), ()]
    for sharding, expected in (("fsdp", axes), ("replicated", [()] * len(axes))):
        assert [x.sharding.spec for x in shared_out(arrays, mesh, sharding)] == [
            PartitionSpec(*spec) for spec in expected
        ]


@pytest.mark.parametrize(
    ("devices", "complaint"),
    [(1, "there is only one device"), (5, "no axis of a parameter is a multiple of 5")],
)
def test_fsdp_is_refused_if_nothing_can_be_sharded(devices, complaint):
    arrays = [jax.ShapeDtypeStruct((7, 3), jnp.float32)]
    mesh = data_parallel_mesh(jax.devices()[:devices])
    with pytest.raises(UserError, match=f"^training.sharding is fsdp and {complaint}.*replicated$"):
        shared_out(arrays, mesh, "fsdp")
