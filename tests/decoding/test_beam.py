# SPDX-License-Identifier: Apache-2.0
"""Beam search compared with enumeration, an argmax loop and a plain-Python search."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.decoding import beam
from tests.decoding.plain_search import plain_search
from tests.decoding.stepwise import (
    EOS,
    PAD,
    START,
    T,
    V,
    advance,
    best,
    entries,
    exit_of,
    init,
    log_softmax,
    random_log_probs,
    search,
    sequences,
    step,
    unfinished,
)


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_of_one_equals_an_argmax_loop(seed):
    prefix = ()
    total = np.float32(0)
    while len(prefix) < T and EOS not in prefix:
        log_probs = random_log_probs(seed, prefix)
        lowest = EOS if prefix else EOS + 1
        token = EOS if len(prefix) == T - 1 else lowest + int(np.argmax(log_probs[lowest:]))
        total += log_probs[token]
        prefix += (token,)

    found = best(search(lambda _, p: random_log_probs(seed, p), [T], beam_size=1))
    assert tuple(found.tokens[0, : len(prefix)].tolist()) == prefix
    assert found.lengths.tolist() == [len(prefix)]
    assert found.log_probs[0] == total
    assert (found.tokens[0, len(prefix) :] == PAD).all()


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_the_best_sequence_of_a_markov_chain(seed, length_penalty):
    limit = 4
    words = [EOS + 1, EOS + 2, EOS + 3]
    table = np.full((V, V), -np.inf, np.float32)
    table[:, [*words, EOS]] = log_softmax(np.random.default_rng(seed).normal(size=(V, 4)) * 2)

    def log_prob(tokens):
        return sum(table[pair] for pair in itertools.pairwise((START, *tokens)))

    everything = [
        (*body, EOS)
        for length in range(1, limit)
        for body in itertools.product(words, repeat=length)
    ]
    scores = [log_prob(tokens) / len(tokens) ** length_penalty for tokens in everything]
    winner = everything[int(np.argmax(scores))]

    state = search(
        lambda _, prefix: table[prefix[-1] if prefix else START],
        [limit],
        beam_size=len(everything),
    )
    found = best(state, length_penalty)
    assert sorted(sequences(state, 0)) == sorted(everything)
    assert tuple(found.tokens[0, : len(winner)].tolist()) == winner
    np.testing.assert_allclose(found.scores[0], max(scores), rtol=1e-5)
    np.testing.assert_allclose(found.log_probs[0], log_prob(winner), rtol=1e-5)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("beam_size", [1, 2, 3, 5])
def test_the_search_equals_the_plain_search(beam_size, length_penalty, ties):
    limits = [T, 1, 2, T, 5, T]

    def log_probs_of(g, prefix):
        return random_log_probs(g, prefix, ties=ties)

    state = search(log_probs_of, limits, beam_size)
    found = best(state, length_penalty)
    for g, limit in enumerate(limits):
        rule = functools.partial(log_probs_of, g)
        expected = plain_search(rule, limit, beam_size, length_penalty)
        assert sequences(state, g) == [hypothesis.tokens for hypothesis in expected]
        assert state.position[g] == len(expected[-1].tokens)  # it stops when it is done
        count = len(expected)
        assert beam.num_finished(state)[g] == count
        np.testing.assert_array_equal(
            state.finished_log_probs[g, :count], [hypothesis.log_prob for hypothesis in expected]
        )
        winner = max(expected, key=lambda hypothesis: hypothesis.score)
        np.testing.assert_allclose(found.scores[g], winner.score, rtol=1e-6)
        if length_penalty == 0.0 or not ties:
            assert tuple(found.tokens[g, : found.lengths[g]].tolist()) == winner.tokens


@pytest.mark.parametrize("beam_size", [1, 4])
def test_exits_follow_their_tokens(beam_size):
    state = search(lambda g, prefix: random_log_probs(g, prefix), [T] * 6, beam_size)
    exits = np.asarray(entries(state.finished_history).exits)
    for g in range(6):
        for k, tokens in enumerate(sequences(state, g)):
            expected = [exit_of(tokens[:t]) for t in range(len(tokens))]
            assert exits[g, k, : len(tokens)].tolist() == expected
    chosen = best(state)
    for tokens, depths, length in zip(*map(np.asarray, chosen[:3]), strict=True):
        prefix = tuple(tokens[:length].tolist())
        assert depths.tolist() == [exit_of(prefix[:t]) for t in range(length)] + [0] * (T - length)


def test_histories_record_the_parent_of_each_beam():
    state = init(np.asarray([T, T]), 3, T, START)
    parents = set()
    for length in range(4):
        after = step(state, lambda g, prefix: random_log_probs(g + 2, prefix))
        for g, k in itertools.product(range(2), range(3)):
            if beam.live(after)[g, k]:
                new = jax.tree.map(lambda part, g=g, k=k: part[g, k], entries(after.history))
                parent = int(new.parents[length])
                old = entries(state.history).tokens[g, parent, :length]
                assert (new.tokens[:length] == old).all()
                log_prob = random_log_probs(g + 2, tuple(old.tolist()))[new.tokens[length]]
                total = state.log_probs[g, parent] + log_prob
                np.testing.assert_allclose(after.log_probs[g, k], total, rtol=1e-5)
                parents.add(parent)
        state = after
    assert parents == {0, 1, 2}


def test_eos_is_forced_at_the_limit_of_each_sentence():
    reluctant = np.log(np.asarray([0.1, 0.1, 0.1, 1e-6, 0.2, 0.2, 0.1, 0.1, 0.1], np.float32))
    state = search(lambda *_: reluctant, [1, 3, T], beam_size=2)
    found = best(state)
    assert found.lengths.tolist() == [1, 3, T]
    for g, length in enumerate([1, 3, T]):
        assert found.tokens[g, length - 1] == EOS
        total = (length - 1) * reluctant[EOS + 1] + reluctant[EOS]
        np.testing.assert_allclose(found.log_probs[g], total, rtol=1e-6)
        np.testing.assert_allclose(found.scores[g], total / length, rtol=1e-6)
    # After one step only one beam exists, the empty one.
    assert beam.num_finished(state).tolist() == [1, 2, 2]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_sentence_does_not_depend_on_its_batch(beam_size):
    limits = [T, 2, 5, T]
    together = search(lambda g, prefix: random_log_probs(g, prefix), limits, beam_size)
    for g, limit in enumerate(limits):
        alone = search(lambda _, prefix, g=g: random_log_probs(g, prefix), [limit], beam_size)
        jax.tree.map(
            lambda a, b, g=g: np.testing.assert_array_equal(a[0], b[g]),
            results(alone),
            results(together),
        )


def results(state: beam.BeamState) -> list[jax.Array]:
    """The parts of the state that stay fixed once a sentence is done."""
    return [state.limit, state.position, beam.live(state), *state[-3:]]


def test_a_finished_sentence_does_not_change():
    state = search(lambda g, prefix: random_log_probs(g, prefix), [2, T], 3)
    after = step(state, lambda g, prefix: random_log_probs(g + 9, prefix))
    jax.tree.map(np.testing.assert_array_equal, results(state), results(after))
    assert beam.done(after).all()


def test_sentences_at_different_positions_advance_together():
    def log_probs_of(g, prefix):
        return random_log_probs(g, prefix)

    limits = [T, T, 4, T]
    together = search(log_probs_of, limits, 3)
    state = init(np.asarray(limits), 3, T, START)
    generator = np.random.default_rng(0)
    while unfinished(state):
        some = generator.choice(len(limits), size=2, replace=False)
        gathered = jax.tree.map(lambda values, some=some: values[some], state)
        gathered = step(gathered, lambda row, prefix, some=some: log_probs_of(some[row], prefix))
        state = jax.tree.map(
            lambda values, new, some=some: values.at[some].set(new), state, gathered
        )
    jax.tree.map(np.testing.assert_array_equal, results(together), results(state))


def test_the_search_runs_inside_a_while_loop():
    table = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (V, V)))

    def body(state):
        log_probs = table[state.tokens]
        return advance(state, log_probs, jnp.ones(log_probs.shape[:2], jnp.int32))

    start = init(np.asarray([T, 3]), 3, T, START)
    looped = jax.jit(lambda state: jax.lax.while_loop(unfinished, body, state))(start)
    stepped = search(lambda _, prefix: table[prefix[-1] if prefix else START], [T, 3], 3)
    for g in range(2):
        assert sequences(looped, g) == sequences(stepped, g)
    np.testing.assert_array_equal(looped.finished_log_probs, stepped.finished_log_probs)


@pytest.mark.parametrize("never", range(EOS))
def test_special_tokens_are_never_chosen(never):
    tempting = np.full(V, np.log(0.1 / V), np.float32)
    tempting[never] = np.log(0.9)
    state = search(lambda *_: tempting, [4], beam_size=2)
    assert all(min(tokens) >= EOS for tokens in sequences(state, 0))


@pytest.mark.parametrize("beam_size", [1, 3])
def test_eos_comes_first_only_at_a_limit_of_one(beam_size):
    eager = np.full(V, np.log(0.1 / V), np.float32)
    eager[EOS] = np.log(0.9)
    found = best(search(lambda *_: eager, [1, 2, T], beam_size))
    assert found.lengths.tolist() == [1, 2, 2]
    np.testing.assert_allclose(found.log_probs[0], eager[EOS])
    np.testing.assert_allclose(found.log_probs[1:], eager[EOS] + eager[V - 1], rtol=1e-6)


def test_live_beams_read_the_start_token_and_then_their_last_token():
    state = init(np.asarray([T]), 2, T, START)
    assert state.tokens.tolist() == [[START, START]]
    state = step(state, lambda g, prefix: random_log_probs(g, prefix))
    assert (state.tokens == entries(state.history).tokens[:, :, 0]).all()
