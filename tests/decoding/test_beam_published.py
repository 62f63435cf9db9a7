# SPDX-License-Identifier: Apache-2.0
"""The beam search reproduces the published test cases of fairseq's beam search.

Two sentences, a beam of 2, two words and EOS, and probabilities that depend on the prefix.
"""

import numpy as np
import pytest

from dat_jax.decoding import beam
from tests.decoding.stepwise import EOS, V, best, search, sequences

W1, W2 = 4, 5
_ENDS = (1.0, 0.0, 0.0)
# For each sentence and prefix, the probabilities of EOS, W1 and W2.
PROBABILITIES = [
    {
        (): (0.0, 0.9, 0.1),
        (W1,): _ENDS,
        (W2,): (0.0, 0.9, 0.1),
        (W2, W1): (0.0, 0.1, 0.9),
        (W2, W2): (0.6, 0.2, 0.2),
    },
    {
        (): (0.0, 0.7, 0.3),
        (W1,): (0.25, 0.35, 0.4),
        (W2,): (0.0, 0.1, 0.9),
        (W1, W2): (0.6, 0.4, 0.0),
        (W2, W2): (0.01, 0.0, 0.99),
        (W2, W2, W2): (0.1, 0.5, 0.4),
    },
]


def log_probs_of(sentence: int, prefix: tuple[int, ...]) -> np.ndarray:
    log_probs = np.full(V, -np.inf, np.float32)
    with np.errstate(divide="ignore"):
        log_probs[[EOS, W1, W2]] = np.log(PROBABILITIES[sentence].get(prefix, _ENDS))
    return log_probs


def ranked(limit: int, length_penalty: float) -> list[list[tuple[tuple[int, ...], float]]]:
    """For each sentence the finished hypotheses without EOS and their scores, best first."""
    state = search(log_probs_of, [limit, limit], 2)
    scores = np.asarray(beam.finished_scores(state, length_penalty))
    return [
        sorted(
            zip(
                [tokens[:-1] for tokens in sequences(state, sentence)],
                scores[sentence].tolist(),
                strict=True,
            ),
            key=lambda hypothesis: -hypothesis[1],
        )
        for sentence in range(2)
    ]


FIRST = [((W1,), [0.9, 1.0]), ((W2, W1, W2), [0.1, 0.9, 0.9, 1.0])]
LONG, SHORT = ((W1, W2, W1), [0.7, 0.4, 0.4, 1.0]), ((W1, W2), [0.7, 0.4, 0.6])
CUT = [
    [((W1,), [0.9, 1.0]), ((W2, W2), [0.1, 0.1, 0.6])],
    [((W1, W2), [0.7, 0.4, 0.6]), ((W2, W2), [0.3, 0.9, 0.01])],
]


@pytest.mark.parametrize(
    ("limit", "length_penalty", "expected"),
    [
        (8, 1.0, [FIRST, [LONG, SHORT]]),
        (8, 0.0, [FIRST, [SHORT, LONG]]),
        (8, 0.6, [FIRST, [SHORT, LONG]]),
        (8, 5.0, [FIRST[::-1], [LONG, SHORT]]),
        (3, 1.0, CUT),
    ],
)
def test_published_cases(limit: int, length_penalty: float, expected):
    for hypotheses, published in zip(ranked(limit, length_penalty), expected, strict=True):
        assert [tokens for tokens, _ in hypotheses] == [tokens for tokens, _ in published]
        for (_, score), (_, probabilities) in zip(hypotheses, published, strict=True):
            log_prob = np.log(probabilities).sum()
            np.testing.assert_allclose(
                score, log_prob / len(probabilities) ** length_penalty, rtol=1e-5
            )


def test_best_returns_the_highest_score():
    found = best(search(log_probs_of, [8, 8], 2), length_penalty=5.0)
    assert found.tokens[:, :4].tolist() == [[W2, W1, W2, EOS], [W1, W2, W1, EOS]]
