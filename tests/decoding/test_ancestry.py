# SPDX-License-Identifier: Apache-2.0
"""The table of ancestors against moving the cache with the beams."""

import jax.numpy as jnp
import numpy as np

from dat_jax.decoding.ancestry import (
    claim,
    follow,
    no_ancestors,
    visible,
    write,
)
from dat_jax.model.attention import KeysValues, States

BATCH, BEAMS, LENGTH, HEADS, WIDTH = 2, 3, 5, 2, 4


def test_each_beam_sees_what_it_would_hold_if_caches_moved():
    generator = np.random.default_rng(0)
    nothing = jnp.zeros((BATCH, HEADS, LENGTH * BEAMS, WIDTH))
    cache, states = KeysValues(nothing, nothing), States(nothing[:, 0])
    ancestors = no_ancestors(BATCH, BEAMS, LENGTH)
    moved = [[[] for _ in range(BEAMS)] for _ in range(BATCH)]
    for position in range(LENGTH):
        keys = generator.normal(size=(BATCH, HEADS, BEAMS, WIDTH)).astype(np.float32)
        parents = generator.integers(0, BEAMS, (BATCH, BEAMS)).astype(np.int32)
        ancestors = claim(ancestors, jnp.asarray(position))
        here, new = jnp.asarray(position), KeysValues(jnp.asarray(keys), jnp.asarray(-keys))
        cache, states = write(cache, here, new), write(states, here, States(new.keys[:, 0]))
        for sentence in range(BATCH):
            for beam in range(BEAMS):
                moved[sentence][beam] = [*moved[sentence][beam], keys[sentence, :, beam]]

        all_keys, all_values = map(np.asarray, cache)
        mask = np.asarray(visible(ancestors))
        for sentence in range(BATCH):
            for beam in range(BEAMS):
                seen = mask[sentence, beam]
                own = np.stack(moved[sentence][beam], axis=1)
                np.testing.assert_array_equal(all_keys[sentence][:, seen], own)
                np.testing.assert_array_equal(all_values[sentence][:, seen], -own)
                np.testing.assert_array_equal(states.states[sentence][seen], own[0])

        ancestors = follow(ancestors, jnp.asarray(parents))
        moved = [
            [moved[sentence][parent] for parent in parents[sentence]] for sentence in range(BATCH)
        ]


def test_nothing_is_visible_before_it_is_written():
    assert not np.asarray(visible(no_ancestors(BATCH, BEAMS, LENGTH))).any()
