# SPDX-License-Identifier: Apache-2.0
"""The FLOPs formula of a training step compared with a count over its program; device peaks."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from dat_jax.checkpoints.state import TrainState
from dat_jax.config import Config
from dat_jax.data.batching import Batch
from dat_jax.model.transformer import Transformer
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.sharding import data_parallel_mesh
from dat_jax.training.step import make_train_step
from dat_jax.training.utilization import peak_flops, step_flops
from tests.tiny import (
    SOURCE_VOCABULARY,
    TARGET_VOCABULARY,
    random_params,
    random_tokens,
    tiny_config,
)

ROWS, SOURCE, TARGET = 4, 7, 5
FULL = Batch(
    np.asarray(random_tokens(0, ROWS, SOURCE, SOURCE_VOCABULARY), np.int32),
    np.asarray(random_tokens(1, ROWS, TARGET, TARGET_VOCABULARY), np.int32),
)
LENGTHS = np.full(ROWS, SOURCE), np.full(ROWS, TARGET)


def model_of(config: Config) -> Transformer:
    return Transformer(config.model, SOURCE_VOCABULARY, TARGET_VOCABULARY)


def products(jaxpr: Any, branch: int) -> int:
    """The FLOPs of all matrix products of a traced program. Loop bodies count once per iteration;
    of each conditional one branch counts."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            summed = [equation.invars[0].aval.shape[axis] for axis in contracted]
            total += 2 * math.prod(summed) * math.prod(equation.outvars[0].aval.shape)
        rounds = equation.params["length"] if equation.primitive.name == "scan" else 1
        inner = equation.params
        if equation.primitive.name == "cond":
            inner = equation.params["branches"][branch]
        total += rounds * sum(products(inside, branch) for inside in programs_in(inner))
    return total


def programs_in(value: Any) -> Iterator[Any]:
    """The programs nested in the parameters of an equation."""
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from programs_in(part)
    elif hasattr(value, "eqns"):
        yield value
    elif hasattr(value, "jaxpr"):
        yield from programs_in(value.jaxpr)


def count_a_step(config: Config, branch: int = 0) -> int:
    """The matrix-product FLOPs of a training step on the full batch; `branch` 1 is the second
    phase of training, if the phases differ."""
    model, optimizer = model_of(config), make_optimizer(config)
    step = make_train_step(model, optimizer, config, data_parallel_mesh(jax.devices()[:1]))
    state = TrainState.create(random_params(model), optimizer)
    return products(jax.make_jaxpr(step)(state, FULL, jax.random.key(0)).jaxpr, branch)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": {"exits": "last"}},
        {"model": {"classifiers": "per_exit", "norm": "pre"}},
        {"training": {"microbatches": 2}},
        {"training": {"mode": "mixed", "exit_samples": 3}},
        {"training": {"mode": "mixed"}, "model": {"classifiers": "per_exit"}},
        {"training": {"mode": "mixed"}, "model": {"norm": "pre"}},
    ],
    ids=str,
)
def test_the_formula_equals_the_count_of_products(changes: dict[str, Any]):
    config = tiny_config(**changes)
    assert step_flops(model_of(config), config, *LENGTHS) == count_a_step(config)


@pytest.mark.parametrize(
    ("head", "trains", "hidden"),
    [
        ("sequence_multinomial", "model_and_head", 0),
        ("token_multinomial", "head", 0),
        ("token_geometric", "model_and_head", 0),
        ("token_geometric", "model_and_head", 40),
        ("token_geometric", "head_alone", 0),
    ],
)
def test_the_formula_nearly_equals_the_count_with_an_exit_head(head: str, trains: str, hidden: int):
    """The head is tiny, even in this small model, and its backward pass is not counted exactly."""
    config = tiny_config(
        model={"exit_head": head, "halting_hidden": hidden}, exit={"trains": trains}
    )
    flops = step_flops(model_of(config), config, *LENGTHS)
    np.testing.assert_allclose(flops, count_a_step(config), rtol=0.03)


@pytest.mark.parametrize("phase", [0, 1])
def test_a_frozen_model_costs_no_backward_pass(phase: int):
    head = {"trains": "head_alone", "start_step": 5}
    config = tiny_config(model={"exit_head": "token_geometric"}, exit=head)
    flops = step_flops(model_of(config), config, *LENGTHS, step=5 + phase)
    np.testing.assert_allclose(flops, count_a_step(config, phase), rtol=0.03)


@pytest.mark.parametrize(
    "changes",
    [{"training": {"gradient_scaling": 0.5}}, {"model": {"rematerialisation": "blocks"}}],
    ids=str,
)
def test_recomputation_does_not_count_as_work_of_the_model(changes: dict[str, Any]):
    plain, again = tiny_config(), tiny_config(**changes)
    model = model_of(plain)
    assert step_flops(model, plain, *LENGTHS) == step_flops(model, again, *LENGTHS)
    assert count_a_step(again) > count_a_step(plain)


@pytest.mark.parametrize(
    ("kind", "dtype", "peak"),
    [
        ("TPU v5 lite", "bfloat16", 197e12),
        ("TPU v5 lite", "float32", 197e12),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H100 80GB HBM3", "float32", None),
        ("NVIDIA H100 PCIe", "bfloat16", None),
        ("cpu", "bfloat16", None),
    ],
)
def test_the_peak_is_known_for_known_devices_only(kind: str, dtype: str, peak: float | None):
    assert peak_flops([kind] * 4, dtype) == (4 * peak if peak else None)


def test_one_unknown_device_makes_the_peak_unknown():
    assert peak_flops(["TPU v4", "TPU v9"], "bfloat16") is None
