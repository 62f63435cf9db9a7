# SPDX-License-Identifier: Apache-2.0
"""LayerDrop (Fan et al., 2020): decoder blocks that training passes over by chance.

Blocks that are often missing teach the others to do without them: the rival of trained exits, whose
low cuts it makes usable. A block is missing for a whole sentence; its state is then the one below.
Nothing is scaled when decoding, which runs all blocks.
"""

import jax
import jax.numpy as jnp

from dat_jax.config import ModelConfig
from dat_jax.types import Array, Bool, Float, Int, PRNGKeyArray


def drop_rates(config: ModelConfig, depths: Int[Array, " N"]) -> Float[Array, " N"]:
    """The probability that the block at each of the depths 1 to N is passed over."""
    rising = depths / config.decoder_layers
    share = rising if config.layer_drop_rates == "rising" else jnp.ones_like(rising)
    return config.layer_drop * share


def draw_kept(key: PRNGKeyArray, drop_rate: Float[Array, ""], rows: int) -> Bool[Array, "B 1"]:
    """Draws, for each sentence, whether it runs a block that is passed over at that rate."""
    return jax.random.bernoulli(key, 1 - drop_rate, (rows, 1))
