# SPDX-License-Identifier: Apache-2.0
"""A block's step from states against its call with the keys and values of these states."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.model.blocks import DecoderBlock
from tests.tiny import ragged_mask, random_array, random_params, tiny_config, tiny_model

B, P, S, D = 4, 6, 5, 8
MEMORY_MASK = ragged_mask((5, 1, 3, 2), S)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_step_from_states_equals_the_call_with_their_keys_and_values(norm: str, seed: int):
    """Biases of keys and values are not 0 here, nor are scales of LayerNorm 1."""
    block = DecoderBlock(tiny_config(model={"norm": norm}).model)
    stacked = random_params(tiny_model(norm=norm), seed)["decoder"]["blocks"]
    variables = {"params": jax.tree.map(lambda leaf: leaf[1], stacked)}
    x, states = random_array(seed, B, D), random_array(seed + 10, B, P, D)
    memory = random_array(seed + 20, B, S, 12)
    mask = np.random.default_rng(seed).random((B, P)) < 0.5
    mask[0], mask[1] = True, False
    mask[np.arange(B), np.arange(B)] = True  # nobody looks at nothing
    mask = jnp.asarray(mask)

    @jax.jit
    def both() -> tuple[jax.Array, jax.Array]:
        of_memory = block.apply(variables, memory, method="memory_keys_values")
        keys_values = block.apply(variables, states, method="self_keys_values")
        called = block.apply(
            variables, x[:, None], keys_values, mask[:, None], of_memory, MEMORY_MASK[:, None]
        )
        kernels = block.apply(variables, method="state_kernels")
        arguments = (x, states, mask, kernels, of_memory, MEMORY_MASK)
        return called[:, 0], block.apply(variables, *arguments, method="step")

    called, stepped = both()
    np.testing.assert_allclose(stepped, called, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_a_step_is_near_float32_and_multiplies_no_float32_matrices():
    params = random_params(tiny_model())["decoder"]["blocks"]
    variables = {"params": jax.tree.map(lambda leaf: leaf[1], params)}
    results = {}
    for dtype in ("float32", "bfloat16"):
        block = DecoderBlock(tiny_config(model={"dtype": dtype}).model)
        x, states = random_array(0, B, D).astype(dtype), random_array(1, B, P, D).astype(dtype)
        memory = random_array(2, B, S, 12).astype(dtype)

        @jax.jit
        def step(x, states, memory, block=block):
            of_memory = block.apply(variables, memory, method="memory_keys_values")
            kernels = block.apply(variables, method="state_kernels")
            mask = jnp.ones((B, P), bool)
            arguments = (x, states, mask, kernels, of_memory, MEMORY_MASK)
            return block.apply(variables, *arguments, method="step")

        results[dtype] = step(x, states, memory)
        text = step.lower(x, states, memory).as_text()
    product = r"dot_general .* : \(tensor<\S*x(\w+)>, tensor<\S*x(\w+)>\)"
    operands = re.findall(product, text)
    assert len(operands) > 8
    assert set(operands) == {("bf16", "bf16")}
    exact, near = results["float32"], results["bfloat16"]
    assert near.dtype == jnp.bfloat16
    difference = np.abs(np.asarray(near, np.float32) - exact)
    assert 0 < difference.max() < 0.05 * np.abs(exact).max()
