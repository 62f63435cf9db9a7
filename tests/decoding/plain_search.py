# SPDX-License-Identifier: Apache-2.0
"""Beam search on tuples, one sentence at a time: the slow twin of the search on arrays."""

import dataclasses
from collections.abc import Callable

import numpy as np

from dat_jax.data.vocabulary import EOS


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished hypothesis of the plain search."""

    tokens: tuple[int, ...]
    log_prob: float
    score: float


def plain_search(
    log_probs: Callable[[tuple[int, ...]], np.ndarray],
    limit: int,
    beam_size: int,
    length_penalty: float,
) -> list[Finished]:
    """The finished hypotheses of one sentence; `log_probs` maps a prefix to [V]."""
    live: list[tuple[tuple[int, ...], np.float32]] = [((), np.float32(0))]
    finished = []
    for length in range(1, limit + 1):
        candidates = []
        for prefix, total in live:
            following = log_probs(prefix)
            words = range(EOS + 1, len(following))  # not PAD, UNK or BOS
            allowed = [EOS] if length == limit else words if length == 1 else [EOS, *words]
            for token in allowed:
                candidates.append(((*prefix, token), np.float32(total + following[token])))
        candidates.sort(key=lambda candidate: -candidate[1])  # stable: ties keep their order
        for tokens, total in candidates[:beam_size]:
            if tokens[-1] == EOS:
                score = total / np.float32(length) ** length_penalty
                finished.append(Finished(tokens, float(total), float(score)))
        finished = finished[:beam_size]
        if len(finished) == beam_size:
            break
        live = [item for item in candidates[: 2 * beam_size] if item[0][-1] != EOS][:beam_size]
    return finished
