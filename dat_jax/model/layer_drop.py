# SPDX-License-Identifier: Apache-2.0
"""LayerDrop (Fan et al., 2020): training skips random decoder blocks.

The other blocks learn to do without them, which makes low cuts of the model usable; an alternative
to trained exits. A whole sentence skips a block, and the state below it is passed on. Decoding runs
all blocks and scales nothing.
"""

import jax
import jax.numpy as jnp

from dat_jax.config import ModelConfig
from dat_jax.types import Array, Bool, Float, Int, PRNGKeyArray


def drop_rates(config: ModelConfig, depths: Int[Array, " N"]) -> Float[Array, " N"]:
    """Returns the probability of skipping the block at each depth 1 to N."""
    rising = depths / config.decoder_layers
    share = rising if config.layer_drop_rates == "rising" else jnp.ones_like(rising)
    return config.layer_drop * share


def draw_kept(key: PRNGKeyArray, drop_rate: Float[Array, ""], rows: int) -> Bool[Array, "B 1"]:
    """Draws for each sentence whether it runs a block with this drop rate."""
    return jax.random.bernoulli(key, 1 - drop_rate, (rows, 1))
