# SPDX-License-Identifier: Apache-2.0
"""The lockstep engine against a search without cache, batch or loop on the device."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.data.vocabulary import BOS, EOS, PAD
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.lockstep import search
from dat_jax.exits.policies import Fixed
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.types import Params
from tests.decoding.plain_search import plain_search
from tests.tiny import SOURCE_VOCABULARY, TARGET_VOCABULARY, tiny_config

LENGTH_PENALTY = 0.8
MAX_LENGTH = 7
SOURCE = np.asarray(
    [[5, 7, 4, 9, EOS], [8, 8, EOS, PAD, PAD], [EOS, PAD, PAD, PAD, PAD], [4, 5, 6, EOS, PAD]],
    np.int32,
)
LIMITS = np.asarray([7, 5, 3, 7], np.int32)

KINDS = [
    {"norm": "post", "classifiers": "shared"},
    {"norm": "pre", "classifiers": "per_exit"},
    {"norm": "post", "classifiers": "per_exit", "exits": "last"},
    {"norm": "pre", "embeddings": "tied", "encoder_dim": 8, "encoder_heads": 2},
]


@functools.cache
def make_model(kind: int) -> tuple[Transformer, Params]:
    """A random model, its states far enough apart for its choices to vary."""
    tied = KINDS[kind].get("embeddings") == "tied"
    source_vocabulary = TARGET_VOCABULARY if tied else SOURCE_VOCABULARY
    model = Transformer(tiny_config(model=KINDS[kind]).model, source_vocabulary, TARGET_VOCABULARY)
    params = init_params(model, jax.random.key(kind))
    return model, jax.tree.map(lambda p: p * 2 if p.ndim > 1 else p, params)


@functools.cache
def whole_pass(model: Transformer) -> Callable[..., jax.Array]:
    return jax.jit(model.apply)


def run(
    kind: int, depth: int, beam_size: int, source: np.ndarray, limits: np.ndarray
) -> Hypotheses:
    model, params = make_model(kind)
    hypotheses, _ = search(
        model,
        params,
        jnp.asarray(source),
        jnp.asarray(limits),
        policy=Fixed(depth),
        beam_size=beam_size,
        length_penalty=LENGTH_PENALTY,
        max_length=MAX_LENGTH,
    )
    return jax.tree.map(np.asarray, hypotheses)


def log_probs_without_cache(kind: int, depth: int, source: np.ndarray, prefix: tuple[int, ...]):
    """The next token's log-probabilities [V], from a whole forward pass over the prefix."""
    model, params = make_model(kind)
    inputs = np.full((1, MAX_LENGTH), PAD, np.int32)
    inputs[0, : len(prefix) + 1] = [BOS, *prefix]
    row = jnp.asarray(source[None])
    logits = whole_pass(model)({"params": params}, row, row != PAD, jnp.asarray(inputs))
    exit_logits = logits[model.config.exit_depths.index(depth), 0, len(prefix)]
    return np.asarray(jax.nn.log_softmax(exit_logits))


CASES = [
    (0, 1, 1),
    (0, 2, 3),
    (0, 3, 1),
    (1, 2, 1),
    (1, 3, 4),
    (2, 3, 2),
    (3, 1, 2),
]


@pytest.mark.parametrize("kind, depth, beam_size", CASES)
def test_equals_the_search_without_cache(kind: int, depth: int, beam_size: int):
    found = run(kind, depth, beam_size, SOURCE, LIMITS)
    for row, (source, limit) in enumerate(zip(SOURCE, LIMITS, strict=True)):
        finished = plain_search(
            functools.partial(log_probs_without_cache, kind, depth, source),
            int(limit),
            beam_size,
            LENGTH_PENALTY,
        )
        best = max(finished, key=lambda hypothesis: hypothesis.score)
        length = found.lengths[row]
        assert tuple(found.tokens[row, :length].tolist()) == best.tokens
        np.testing.assert_allclose(found.scores[row], best.score, rtol=1e-4)
        np.testing.assert_allclose(found.log_probs[row], best.log_prob, rtol=1e-4)


def test_the_cases_are_not_all_alike():
    """Different depths and beams find different hypotheses, or the test above says little."""
    tokens = {
        str(run(kind, depth, beam_size, SOURCE, LIMITS).tokens.tolist())
        for kind, depth, beam_size in CASES
    }
    assert len(tokens) == len(CASES)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_sentence_does_not_see_its_neighbours(beam_size: int):
    together = run(0, 3, beam_size, SOURCE, LIMITS)
    for row in range(len(SOURCE)):
        alone = run(0, 3, beam_size, SOURCE[row : row + 1], LIMITS[row : row + 1])
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-5)


def test_padding_of_source_and_batch_changes_nothing():
    wide = np.pad(SOURCE, ((0, 2), (0, 3)), constant_values=PAD)
    padded = run(1, 2, 2, wide, np.pad(LIMITS, (0, 2), constant_values=1))
    bare = run(1, 2, 2, SOURCE, LIMITS)
    np.testing.assert_array_equal(padded.tokens[: len(SOURCE)], bare.tokens)
    np.testing.assert_allclose(padded.scores[: len(SOURCE)], bare.scores, rtol=1e-5)


def test_every_token_exits_at_the_fixed_depth():
    found = run(0, 2, 2, SOURCE, LIMITS)
    for row, length in enumerate(found.lengths):
        assert (found.exits[row, :length] == 2).all()
        assert (found.exits[row, length:] == 0).all()


def test_only_the_blocks_up_to_the_exit_run():
    model, params = make_model(0)
    for depth in (1, 3):
        hypotheses, rows_run = search(
            model,
            params,
            jnp.asarray(SOURCE),
            jnp.asarray(LIMITS),
            policy=Fixed(depth),
            beam_size=1,
            length_penalty=1.0,
            max_length=MAX_LENGTH,
        )
        assert int(rows_run) == depth * len(SOURCE) * int(hypotheses.lengths.max())
