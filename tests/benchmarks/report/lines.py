# SPDX-License-Identifier: Apache-2.0
"""Lines of `benchmarks.reproduce` with made-up scores."""

from typing import Any

import numpy as np

from benchmarks.bleu_counts import pack
from benchmarks.report.bootstrap import bleu

GENERATOR = np.random.default_rng(0)
LENGTHS = GENERATOR.integers(5, 20, 50)
LUCK = GENERATOR.random((50, 20))


def counts_of(share: float) -> np.ndarray:
    """Returns the counts of a system with this share of correct words, which varies by sentence."""
    rows = []
    for length, luck in zip(LENGTHS, LUCK, strict=True):
        right = luck[:length] < share
        grams = [np.lib.stride_tricks.sliding_window_view(right, n).all(-1) for n in range(1, 5)]
        rows.append([*(g.sum() for g in grams), *(len(g) for g in grams), length, length])
    return np.array(rows, np.int32)


def line(point: str, policy: str, share: float, seed: int = 0, **others: Any) -> dict[str, Any]:
    """Returns a line of a suite."""
    counts, exits = counts_of(share), others.get("average_exit", 1.0)
    return {
        "benchmark": "reproduce",
        "suite": "table1",
        "point": point,
        "policy": policy,
        "seed": seed,
        "split": "test",
        "bleu": bleu(counts.sum(axis=0)),
        "bleu_counts": pack(counts),
        "average_exit": exits,
        "exit_histogram": {"1": 5, "2": 5},
        "flops_per_token": 1e6 * exits,
        "tokens_per_second": 1e4 / exits,
        "beam_size": 1,
        "shortlist": 0,
        "trailing_gap": 0.0,
        "batch_size": 32,
        "exit_by_position": [exits] * 10,
        "exit_by_score": [[1] * 10, [2] * 10],
    } | others


TABLE1 = [
    line("aligned", "fixed:1", 0.80),
    line("aligned", "fixed:1", 0.82, seed=1),
    line("aligned", "fixed:2", 0.90, average_exit=2.0),
    line("aligned", "uniform:0", 0.84, average_exit=1.5),
    line("baseline_1", "fixed:1", 0.85),
    line("baseline_2", "fixed:2", 0.90, average_exit=2.0),
    line("mixed_1", "fixed:2", 0.70, average_exit=2.0),
]


def cells(table: str) -> list[list[str]]:
    """Returns the cells of a table in Markdown, row by row."""
    return [[c.strip() for c in row.strip("|").split("|")] for row in table.splitlines()]
