# SPDX-License-Identifier: Apache-2.0
"""Attention through ancestor tables, compared with moving the cache along with the beams."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.data.vocabulary import BOS
from dat_jax.decoding import beam
from dat_jax.decoding.cache import Past, attend_memory, attend_past, past_of, write
from dat_jax.decoding.compaction import Rows
from dat_jax.decoding.history import Entries, extend
from dat_jax.model.attention import Attended, KeysValues, StateKernels, States

SENTENCES, T, HEADS, WIDTH = 3, 5, 2, 4
STEPS = 9  # more than the ring holds, for sentences that start later
STARTS = (0, 2, 4)


def plain_attention(query: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Attention of one query [H, K] over keys and values [P, H, K]."""
    scores = np.einsum("hk,phk->hp", query, keys)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("hp,phk->hk", weights, values)


def identity_kernels() -> StateKernels:
    """Kernels that make a state its own key and value."""
    own = np.eye(HEADS * WIDTH, dtype=np.float32).reshape(HEADS, WIDTH, HEADS * WIDTH)
    bias = jnp.zeros((HEADS, WIDTH))
    return StateKernels(jnp.asarray(own), jnp.asarray(np.swapaxes(own, 1, 2)), bias)


@pytest.mark.parametrize("form", [KeysValues, States])
@pytest.mark.parametrize("windows", [(T,), (2, 3, T)])
@pytest.mark.parametrize("rows", [None, (1, 4), (0, 2, 3, 5, 7, 8)])
@pytest.mark.parametrize("beams", [1, 3])
def test_each_hypothesis_attends_to_its_own_past(
    beams: int, rows: tuple[int, ...] | None, windows: tuple[int, ...], form: type
):
    total = SENTENCES * beams
    rows = None if rows is None else tuple(row for row in rows if row < total)
    active = np.isin(np.arange(total), range(total) if rows is None else rows)
    chosen = Rows(jnp.asarray(active), None if rows is None else jnp.asarray([*rows, total]))
    generator = np.random.default_rng(0)
    nothing = jnp.zeros((SENTENCES, HEADS, T * beams, WIDTH))
    cache: Attended = KeysValues(nothing, nothing)
    if form is States:
        cache = States(jnp.zeros((SENTENCES, T * beams, HEADS * WIDTH)))
    state = beam.init(jnp.full(SENTENCES, T), beams, T, BOS)
    held: list[list[list[tuple]]] = [[[] for _ in range(beams)] for _ in range(SENTENCES)]

    @jax.jit
    def mix(cache: Attended, past: Past, query: jax.Array) -> jax.Array:
        attend = attend_past(cache, past, chosen, windows, identity_kernels())
        return attend(chosen.take(query)[:, None], lambda weights: weights)[:, 0]

    for step in range(STEPS):
        now = jnp.asarray(step % T)
        shape = (SENTENCES, HEADS, beams, WIDTH)
        keys, values = generator.normal(size=(2, *shape)).astype(np.float32)
        new: Attended = KeysValues(jnp.asarray(keys), jnp.asarray(values))
        if form is States:
            values = keys
            new = States(jnp.swapaxes(new.keys, 1, 2).reshape(SENTENCES, beams, -1))
        cache = write(cache, now, new)
        for g in range(SENTENCES):
            if step in (STARTS[g], STARTS[g] + T):  # a sentence enters, later another in its slot
                held[g] = [[] for _ in range(beams)]
            for j in range(beams):
                held[g][j] = [*held[g][j], (keys[g, :, j], values[g, :, j])]
        position = jnp.asarray([(step - start) % T for start in STARTS])
        state = state._replace(position=position, log_probs=jnp.zeros((SENTENCES, beams)))
        past = past_of(state, now, windows)
        query = generator.normal(size=(total, HEADS, WIDTH)).astype(np.float32)
        mixed = np.asarray(mix(cache, past, jnp.asarray(query)))
        for place, row in enumerate(range(total) if rows is None else rows):
            if step >= STARTS[row // beams]:
                own = zip(*held[row // beams][row % beams], strict=True)
                expected = plain_attention(query[row], *map(np.stack, own))
                np.testing.assert_allclose(mixed[place], expected, rtol=1e-4, atol=1e-5)

        parents = generator.integers(0, beams, (SENTENCES, beams)).astype(np.int32)
        held = [[held[g][j] for j in parents[g]] for g in range(SENTENCES)]
        entries = Entries(jnp.asarray(parents), jnp.asarray(parents), jnp.asarray(parents))
        history = beam.take_beams(state.history, jnp.asarray(parents))
        state = state._replace(history=extend(history, position, entries))


def test_attention_reads_only_as_far_as_the_longest_live_hypothesis():
    state = beam.init(jnp.full(3, T), 2, T, BOS)._replace(position=jnp.asarray([1, 4, 2]))
    windows, now = (2, 3, T), jnp.asarray(0)
    assert past_of(state, now, windows).window == 2
    second_is_done = state._replace(log_probs=state.log_probs.at[1].set(-jnp.inf))
    assert past_of(second_is_done, now, windows).window == 1
    greedy = beam.init(jnp.full(3, T), 1, T, BOS)._replace(position=jnp.asarray([1, 1, 1]))
    assert [past_of(greedy, jnp.asarray(n), windows).window for n in range(T)] == [2, 0, 0, 0, 0]


@pytest.mark.parametrize("rows", [None, (4,), (0, 2, 3, 5)])
def test_rows_attend_to_the_memory_of_their_sentence(rows: tuple[int, ...] | None):
    generator, beams, length = np.random.default_rng(1), 2, 6
    total = SENTENCES * beams
    shape = (SENTENCES, HEADS, length, WIDTH)
    keys, values = generator.normal(size=(2, *shape)).astype(np.float32)
    lengths = np.asarray([6, 2, 4])
    mask = np.arange(length)[None] < lengths[:, None]
    active = np.isin(np.arange(total), range(total) if rows is None else rows)
    chosen = Rows(jnp.asarray(active), None if rows is None else jnp.asarray(rows))
    query = generator.normal(size=(total, HEADS, WIDTH)).astype(np.float32)
    memory = KeysValues(jnp.asarray(keys), jnp.asarray(values))
    attend = attend_memory(memory, jnp.asarray(mask), chosen, identity_kernels())
    mixed = attend(chosen.take(jnp.asarray(query))[:, None], lambda weights: weights)[:, 0]
    for place, row in enumerate(range(total) if rows is None else rows):
        g, seen = row // beams, slice(lengths[row // beams])
        own = [np.swapaxes(array[g], 0, 1)[seen] for array in (keys, values)]
        expected = plain_attention(query[row], *own)
        np.testing.assert_allclose(mixed[place], expected, rtol=1e-4, atol=1e-5)
