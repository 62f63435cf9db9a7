# SPDX-License-Identifier: Apache-2.0
"""Attention to states equals attention to the keys and values of those states."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.model.attention import AttendedForm, attend_to
from dat_jax.model.blocks import DecoderBlock
from dat_jax.types import Params
from tests.tiny import ragged_mask, random_array, random_params, tiny_config, tiny_model

B, T, P, S, D, E = 4, 3, 6, 5, 8, 12
MEMORY_MASK = ragged_mask((5, 1, 3, 2), S)[:, None]
FORMS: list[AttendedForm] = ["keys_values", "states"]


def call(
    block: DecoderBlock,
    params: Params,
    forms: tuple[AttendedForm, AttendedForm],
    x: jax.Array,
    inputs: jax.Array,
    memory: jax.Array,
    mask: jax.Array,
) -> jax.Array:
    """Runs the block on `x`, attending to `inputs` and to the memory in these forms."""

    def run(method: str, *arguments: object) -> Any:
        return block.apply({"params": params}, *arguments, method=method)

    of_self, of_memory = (
        run("self_attended", inputs, forms[0]),
        run("memory_attended", memory, forms[1]),
    )
    kernels = run("state_kernels")
    return run(
        "__call__",
        x,
        attend_to(of_self, mask, kernels.self_attention),
        attend_to(of_memory, MEMORY_MASK, kernels.memory_attention),
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_attention_to_states_equals_attention_to_keys_and_values(norm: str, seed: int):
    """Biases of keys and values are not 0 here, and scales of LayerNorm are not 1."""
    block = DecoderBlock(tiny_config(model={"norm": norm}).model)
    stacked = random_params(tiny_model(norm=norm), seed)["decoder"]["blocks"]
    params = jax.tree.map(lambda leaf: leaf[1], stacked)
    x, inputs = random_array(seed, B, T, D), random_array(seed + 10, B, P, D)
    memory = random_array(seed + 20, B, S, E)
    mask = np.random.default_rng(seed).random((B, T, P)) < 0.5
    mask[0], mask[1] = True, False
    mask[np.arange(B), :, np.arange(B)] = True  # every query sees something

    @jax.jit
    def all_forms() -> list[jax.Array]:
        forms = [(one, other) for one in FORMS for other in FORMS]
        return [call(block, params, pair, x, inputs, memory, jnp.asarray(mask)) for pair in forms]

    projected, *others = all_forms()
    for other in others:
        np.testing.assert_allclose(other, projected, rtol=1e-4, atol=1e-5)
    assert np.abs(np.diff(projected, axis=1)).max() > 0.1


@pytest.mark.parametrize("form", FORMS)
def test_a_bfloat16_block_is_close_to_float32_and_multiplies_in_bfloat16(
    form: AttendedForm,
):
    params = random_params(tiny_model())["decoder"]["blocks"]
    params, results = jax.tree.map(lambda leaf: leaf[1], params), {}
    mask = jnp.ones((B, T, P), bool)
    for dtype in ("float32", "bfloat16"):
        block = DecoderBlock(tiny_config(model={"dtype": dtype}).model)
        shapes = ((B, T, D), (B, P, D), (B, S, E))
        arrays = [random_array(seed, *shape).astype(dtype) for seed, shape in enumerate(shapes)]

        @jax.jit
        def step(x, inputs, memory, block=block):
            return call(block, params, (form, form), x, inputs, memory, mask)

        results[dtype] = step(*arrays)
        text = step.lower(*arrays).as_text()
    product = r"dot_general .* : \(tensor<\S*x(\w+)>, tensor<\S*x(\w+)>\)"
    operands = re.findall(product, text)
    assert len(operands) > 8
    assert set(operands) == {("bf16", "bf16")}
    exact, near = results["float32"], results["bfloat16"]
    assert near.dtype == jnp.bfloat16
    difference = np.abs(np.asarray(near, np.float32) - exact)
    assert 0 < difference.max() < 0.05 * np.abs(exact).max()
