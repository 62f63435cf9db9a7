# SPDX-License-Identifier: Apache-2.0
"""A model that compiles quickly, parameters and batches for it, and a comparison of trees."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import base
from dat_jax.config import Config
from dat_jax.model.transformer import Transformer
from dat_jax.types import Params

SOURCE_VOCABULARY = 13
TARGET_VOCABULARY = 11


def tiny_config(**sections: dict[str, Any]) -> Config:
    """The tiny config with some keys changed: `tiny_config(model={"norm": "pre"})`.

    Encoder and decoder differ in every dimension, so that no test passes because they are equal.
    Tied embeddings need equal dimensions and get them.
    """
    values = base.get_config().to_dict()
    values["data"] |= {"vocabulary_size": TARGET_VOCABULARY, "max_length": 12}
    values["model"] |= {
        "decoder_layers": 3,
        "encoder_layers": 2,
        "encoder_dim": 12,
        "encoder_ff_dim": 10,
        "encoder_heads": 3,
        "decoder_dim": 8,
        "decoder_ff_dim": 14,
        "decoder_heads": 2,
        "dropout": 0.0,
    }
    values["training"] |= {"batch_tokens": 64, "num_shapes": 2}
    for section, changes in sections.items():
        values[section] |= changes
    if values["model"]["embeddings"] == "tied":
        values["model"] |= {"encoder_dim": values["model"]["decoder_dim"], "encoder_heads": 2}
    return Config.from_dict(values)


def tiny_model(**changes: Any) -> Transformer:
    """The model of the tiny config, with some keys of section `model` changed."""
    config = tiny_config(model=changes).model
    tied = config.embeddings == "tied"
    return Transformer(config, TARGET_VOCABULARY if tied else SOURCE_VOCABULARY, TARGET_VOCABULARY)


def random_params(model: Transformer, seed: int = 0) -> Params:
    """Random parameters, including biases and scales, unlike fresh ones."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(0, 0.5, leaf.shape), leaf.dtype), _shapes(model)
    )


@functools.cache
def _shapes(model: Transformer) -> Params:
    token, real = np.zeros((1, 1), np.int32), np.ones((1, 1), bool)
    return jax.eval_shape(model.init, jax.random.key(0), token, real, token)["params"]


def random_array(seed: int, *shape: int) -> jax.Array:
    """Normal values in float32, drawn by numpy to avoid compiling."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def random_tokens(seed: int, rows: int, length: int, vocabulary_size: int) -> jax.Array:
    """Token ids without padding."""
    return jnp.asarray(np.random.default_rng(seed).integers(1, vocabulary_size, (rows, length)))


def ragged_mask(lengths: Sequence[int], longest: int) -> jax.Array:
    """True on the first `lengths[b]` positions of row b."""
    return jnp.asarray(np.arange(longest)[None] < np.asarray(lengths)[:, None])


def assert_all_close(actual: Any, expected: Any) -> None:
    """Asserts that two trees have the same structure and nearly equal leaves."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), actual, expected
    )
