# SPDX-License-Identifier: Apache-2.0
"""Exit distributions equal the paper's formulas, and stay finite where those overflow."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dat_jax.exits.distributions import geometric, multinomial
from tests.tiny import random_array

BOTH = [geometric, multinomial]

log_q_of = jax.jit(lambda kind, logits: kind(logits), static_argnums=0)
jacobian_of = jax.jit(
    lambda kind, logits: jax.vmap(jax.jacrev(kind))(logits),  # [B, N, logits of a token]
    static_argnums=0,
)
finite_logits = arrays(np.float32, (2, 3), elements=st.floats(-1e4, 1e4, width=32))


def every_sign(count: int) -> np.ndarray:
    """All sequences of `count` signs, [2^count, count]."""
    return np.asarray(list(itertools.product([-1.0, 1.0], repeat=count)), np.float32)


def halting_probabilities(logits: np.ndarray) -> np.ndarray:
    """Chi of equation 12, in float64."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def geometric_by_definition(logits: np.ndarray) -> np.ndarray:
    """q(1) to q(N) of one token by equations 12 and 13."""
    chi = halting_probabilities(logits)
    halts_at = [chi[n] * np.prod(1 - chi[:n]) for n in range(len(chi))]
    return np.asarray([*halts_at, np.prod(1 - chi)])


def geometric_gradients(logits: np.ndarray) -> np.ndarray:
    """Derivatives [N, N - 1] of one token's log q(n) with respect to each block's logit."""
    chi = halting_probabilities(logits)
    blocks, depths = np.arange(len(chi))[None], np.arange(len(chi) + 1)[:, None]
    return np.where(depths == blocks, 1 - chi, np.where(depths > blocks, -chi, 0))


@pytest.mark.parametrize("num_layers", [2, 3, 6])
def test_geometric_equals_its_definition(num_layers):
    logits = 2 * random_array(num_layers, 5, num_layers - 1)
    expected = [geometric_by_definition(row) for row in np.asarray(logits)]
    np.testing.assert_allclose(jnp.exp(log_q_of(geometric, logits)), expected, rtol=1e-5)


def test_multinomial_is_a_softmax():
    logits = random_array(0, 5, 4)
    odds = np.exp(np.asarray(logits, np.float64))
    expected = odds / odds.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(jnp.exp(log_q_of(multinomial, logits)), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", BOTH)
@given(logits=finite_logits)
def test_probabilities_sum_to_one(kind, logits):
    log_q = log_q_of(kind, jnp.asarray(logits))
    assert np.isfinite(log_q).all()
    np.testing.assert_allclose(jnp.exp(log_q).sum(axis=-1), 1, atol=1e-5)


def test_geometric_gradients_equal_the_formula():
    logits = 2 * random_array(1, 5, 3)
    expected = [geometric_gradients(row) for row in np.asarray(logits)]
    np.testing.assert_allclose(jacobian_of(geometric, logits), expected, rtol=1e-4)


def test_geometric_and_its_gradients_are_exact_at_huge_logits():
    signs = every_sign(3)
    logits = jnp.asarray(1e4 * signs)
    log_q = log_q_of(geometric, logits)
    assert np.isfinite(log_q).all()
    # All mass is on the first block that halts, or else on the last block.
    halts = np.column_stack([signs, np.ones(len(signs))]) > 0
    np.testing.assert_array_equal(jnp.exp(log_q), np.eye(4)[np.argmax(halts, axis=1)])
    expected = [geometric_gradients(row) for row in np.asarray(logits)]
    np.testing.assert_array_equal(jacobian_of(geometric, logits), expected)


def test_multinomial_and_its_gradients_are_finite_at_huge_logits():
    logits = jnp.asarray(1e4 * every_sign(4))
    assert np.isfinite(log_q_of(multinomial, logits)).all()
    assert np.isfinite(jacobian_of(multinomial, logits)).all()


@pytest.mark.parametrize("kind", BOTH)
def test_batched_tokens_equal_single_tokens(kind):
    logits = random_array(2, 2, 3, 4)
    log_q = log_q_of(kind, logits)
    assert log_q.shape[:2] == (2, 3)
    for b, t in itertools.product(range(2), range(3)):
        np.testing.assert_allclose(log_q[b, t], log_q_of(kind, logits[b, t]), rtol=1e-5)
