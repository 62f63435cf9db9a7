# SPDX-License-Identifier: Apache-2.0
"""The few shapes that batches come in, chosen so that little of them is padding."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from dat_jax.errors import UserError

_ENOUGH_ROUNDS = 20
_NOTHING = (0, 0)


class Shape(NamedTuple):
    """A batch's shape: `rows` pairs of at most `source` and `target` ids."""

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
    """Chooses at most `num_shapes` shapes, one of which fits any pair of these lengths.

    Args:
        source_lengths: the number of source ids of each pair.
        target_lengths: the number of target ids of each pair.
        num_shapes: how many shapes there may be.
        batch_tokens: a shape has as many rows as keep its longer side within these tokens.
        row_multiple: the number of rows is a multiple of this.

    Raises:
        UserError: `batch_tokens` is too little for `row_multiple` rows of the longest pair.
    """
    boxes = _choose_boxes(_histogram(source_lengths, target_lengths), num_shapes)
    needed = row_multiple * max(map(max, boxes))
    if batch_tokens < needed:
        raise UserError(
            f"training.batch_tokens is {batch_tokens}: raise it to {needed} or more, "
            "or lower data.max_length"
        )
    return [
        Shape(batch_tokens // max(box) // row_multiple * row_multiple, *box)
        for box in sorted(boxes, key=lambda box: (sum(box), box))
    ]


def _histogram(
    source_lengths: Int[np.ndarray, " B"], target_lengths: Int[np.ndarray, " B"]
) -> Int[np.ndarray, "S T"]:
    """Counts the pairs of each pair of lengths."""
    shape = (source_lengths.max() + 1, target_lengths.max() + 1)
    cells = np.ravel_multi_index((source_lengths, target_lengths), shape)
    return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)


def _choose_boxes(counts: Int[np.ndarray, "S T"], num_boxes: int) -> list[tuple[int, int]]:
    """Minimises the padded tokens: adds the best box again and again, then replaces each by better.

    The first box holds everything and stays. Where one box goes best, the others being given, is
    found exactly; in what order they are given is greedy.
    """
    largest = (counts.shape[0] - 1, counts.shape[1] - 1)
    boxes = [largest]
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


def _best_box(counts: Int[np.ndarray, "S T"], boxes: list[tuple[int, int]]) -> tuple[int, int]:
    """Finds the box that saves most padded tokens when added to `boxes`.

    A box (s, t) takes the pairs it fits from every box that is larger than s + t. The answer is the
    box that holds nothing if no other saves any.
    """
    source, target = np.indices(counts.shape)
    tokens = source + target
    cost = np.min(
        [
            np.where((source <= box[0]) & (target <= box[1]), sum(box), np.iinfo(np.int64).max)
            for box in boxes
        ],
        axis=0,
    )
    saved = np.zeros(counts.shape, np.int64)
    for size in sorted({sum(box) for box in boxes}):
        fitting = np.where(cost == size, counts, 0).cumsum(axis=0).cumsum(axis=1)
        saved += fitting * np.maximum(size - tokens, 0)
    best = np.unravel_index(np.argmax(saved), saved.shape)
    return int(best[0]), int(best[1])
