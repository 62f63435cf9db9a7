# SPDX-License-Identifier: Apache-2.0
"""Chooses a few batch shapes that need little padding."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from dat_jax.errors import UserError

_ENOUGH_ROUNDS = 20
_NOTHING = (0, 0)


class Shape(NamedTuple):
    """A batch shape: `rows` pairs of at most `source` and `target` ids."""

    rows: int
    source: int
    target: int


def choose_shapes(
    source_lengths: Int[np.ndarray, " B"],
    target_lengths: Int[np.ndarray, " B"],
    num_shapes: int,
    batch_tokens: int,
    row_multiple: int = 1,
) -> list[Shape]:
    """Chooses at most `num_shapes` shapes, such that one of them fits any pair of these lengths.

    Args:
        source_lengths: the number of source ids of each pair.
        target_lengths: the number of target ids of each pair.
        num_shapes: the maximum number of shapes.
        batch_tokens: the maximum of rows times the longer side of a shape.
        row_multiple: the number of rows is a multiple of this.

    Raises:
        UserError: `batch_tokens` is too little for `row_multiple` rows of the longest pair.
    """
    needed = row_multiple * int(max(source_lengths.max(), target_lengths.max()))
    if batch_tokens < needed:
        raise UserError(
            f"training.batch_tokens is {batch_tokens}: raise it to {needed} or more, "
            "or lower data.max_length"
        )
    boxes = _choose_boxes(_count(source_lengths, target_lengths), num_shapes)
    return [
        Shape(batch_tokens // max(box) // row_multiple * row_multiple, *box)
        for box in sorted(boxes, key=lambda box: (sum(box), box))
    ]


class _Counts(NamedTuple):
    """Counts of pairs by source and target length; has only lengths that occur, and 0."""

    pairs: Int[np.ndarray, "S T"]
    sources: Int[np.ndarray, "S 1"]
    targets: Int[np.ndarray, "1 T"]


def _count(source_lengths: Int[np.ndarray, " B"], target_lengths: Int[np.ndarray, " B"]) -> _Counts:
    sources, rows = np.unique(np.append(source_lengths, 0), return_inverse=True)
    targets, columns = np.unique(np.append(target_lengths, 0), return_inverse=True)
    shape = len(sources), len(targets)
    cells = np.ravel_multi_index((rows, columns), shape)[:-1]
    pairs = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    return _Counts(pairs, sources[:, None], targets[None])


def _choose_boxes(counts: _Counts, num_boxes: int) -> list[tuple[int, int]]:
    """Minimises padded tokens greedily: adds the best box repeatedly, then improves each in turn.

    The first box fits everything and stays. Each box is optimal given the others.
    """
    boxes = [(int(counts.sources.max()), int(counts.targets.max()))]
    while len(boxes) < num_boxes:
        boxes.append(_best_box(counts, boxes))
    for _ in range(_ENOUGH_ROUNDS):
        before = list(boxes)
        for index in range(1, num_boxes):
            others = boxes[:index] + boxes[index + 1 :]
            boxes[index] = _best_box(counts, others)
        if boxes == before:
            break
    return [box for box in dict.fromkeys(boxes) if box != _NOTHING]


def _best_box(counts: _Counts, boxes: list[tuple[int, int]]) -> tuple[int, int]:
    """Finds the box that saves most padded tokens when added to `boxes`.

    A box (s, t) takes the pairs that fit it from every box larger than s + t. Only lengths that
    occur need be tried, because a box with others could shrink. Returns the empty box if no box
    saves any tokens.
    """
    tokens = counts.sources + counts.targets
    cost = np.min(
        [
            np.where(
                (counts.sources <= box[0]) & (counts.targets <= box[1]),
                sum(box),
                np.iinfo(np.int64).max,
            )
            for box in boxes
        ],
        axis=0,
    )
    saved = np.zeros(tokens.shape, np.int64)
    for size in sorted({sum(box) for box in boxes}):
        fitting = np.where(cost == size, counts.pairs, 0).cumsum(axis=0).cumsum(axis=1)
        saved += fitting * np.maximum(size - tokens, 0)
    row, column = np.unravel_index(np.argmax(saved), saved.shape)
    return int(counts.sources[row, 0]), int(counts.targets[0, column])
