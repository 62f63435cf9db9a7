# SPDX-License-Identifier: Apache-2.0
"""Batches in a few fixed shapes, in an order that depends only on seed and epoch.

Each shape is compiled once and holds about the same number of tokens. A pair goes into the smallest
shape that fits it. Rows left over at the end of an epoch are all PAD.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from dat_jax.data.shapes import Shape, choose_shapes
from dat_jax.data.tokens import TokenFile
from dat_jax.data.vocabulary import PAD

_NO_PAIR = -1

_Pairs = Int[np.ndarray, " _"]  # indices of pairs
_Members = Mapping[Shape, _Pairs]
_Plan = list[tuple[Shape, _Pairs]]
ChooseRows = Callable[[int], Int[np.ndarray, " B"]]
"""Returns the rows to read of a batch with this many rows: all, or the share of a process."""


class Batch(NamedTuple):
    """Padded int32 ids. Rows end with EOS, then PAD; the target has no BOS."""

    source: Int[np.ndarray, "B S"]
    target: Int[np.ndarray, "B T"]


def shapes_for(
    files: Sequence[TokenFile], num_shapes: int, batch_tokens: int, row_multiple: int = 1
) -> list[Shape]:
    """Chooses shapes that fit every pair of `files`; see `choose_shapes`.

    Raises:
        UserError: `batch_tokens` is too little for `row_multiple` rows of the longest pair.
    """
    return choose_shapes(
        np.concatenate([file.source_lengths for file in files]),
        np.concatenate([file.target_lengths for file in files]),
        num_shapes,
        batch_tokens,
        row_multiple,
    )


class BatchIterator:
    """An endless iterator over batches: each pair once per epoch, in a new order each time."""

    def __init__(
        self,
        file: TokenFile,
        shapes: Sequence[Shape],
        seed: int,
        state: Mapping[str, int] | None = None,
        own: ChooseRows = np.arange,
    ) -> None:
        """Starts at the first epoch, or where another iterator was when it returned `state`.

        Args:
            file: the pairs.
            shapes: from `shapes_for`; one of them fits any pair.
            seed: determines the order, together with the epoch.
            state: the `state` of an iterator over the same file and shapes.
            own: the rows to read; by default all.

        Raises:
            ValueError: `state` has another seed, or a pair fits no shape.
        """
        self._file = file
        self._members = _members(file, shapes)
        self._seed, self._own = seed, own
        self._epoch = 0
        self._next_batch = 0
        if state is not None:
            if state["seed"] != seed:
                raise ValueError(f"the state has seed {state['seed']}, not {seed}")
            self._epoch, self._next_batch = state["epoch"], state["next_batch"]
        self._plan = self._plan_epoch(self._epoch)

    @property
    def state(self) -> dict[str, int]:
        """The position in the data, as three integers: `seed`, `epoch`, `next_batch`."""
        return {"seed": self._seed, "epoch": self._epoch, "next_batch": self._next_batch}

    @property
    def last(self) -> tuple[int, int]:
        """The epoch of the last batch and its number in the epoch, both from 0."""
        return self._epoch, self._next_batch - 1

    @property
    def passed(self) -> float:
        """The number of passes through the data so far, such as 1.25."""
        return self._epoch + self._next_batch / self.batches_per_epoch

    @property
    def lengths(self) -> tuple[_Pairs, _Pairs]:
        """The lengths of all pairs of the last batch: sources, targets."""
        _, pairs = self._plan[self._next_batch - 1]
        pairs = pairs[pairs != _NO_PAIR]
        lengths = self._file.source_lengths, self._file.target_lengths
        return lengths[0][pairs].astype(np.int64), lengths[1][pairs].astype(np.int64)

    def pairs_of(self, epoch: int, batch: int) -> _Pairs:
        """Returns the indices of the pairs in a batch of an epoch."""
        _, pairs = self._plan_epoch(epoch)[batch]
        return pairs[pairs != _NO_PAIR]

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches, the same in every epoch."""
        return len(self._plan)

    def __iter__(self) -> "BatchIterator":
        return self

    def __next__(self) -> Batch:
        if self._next_batch >= self.batches_per_epoch:
            self._epoch, self._next_batch = self._epoch + 1, 0
            self._plan = self._plan_epoch(self._epoch)
        shape, pairs = self._plan[self._next_batch]
        self._next_batch += 1
        return _gather(self._file, pairs[self._own(shape.rows)], shape)

    def _plan_epoch(self, epoch: int) -> _Plan:
        random = np.random.default_rng((self._seed, epoch))
        plan = _make_plan(self._members, random.permutation)
        return [plan[index] for index in random.permutation(len(plan))]


def one_pass(
    file: TokenFile, shapes: Sequence[Shape], own: ChooseRows = np.arange
) -> Iterator[Batch]:
    """Yields every pair of `file` once, in batches of these shapes and in a fixed order.

    Reads the rows of each batch that `own` returns, by default all.

    Raises:
        ValueError: a pair fits no shape.
    """
    for shape, pairs in _make_plan(_members(file, shapes), np.asarray):
        yield _gather(file, pairs[own(shape.rows)], shape)


def _members(file: TokenFile, shapes: Sequence[Shape]) -> _Members:
    """Assigns each pair to the smallest shape that fits it; smallest shape first."""
    cheapest_first = sorted(shapes, key=lambda shape: shape.source + shape.target)
    choice = np.full(len(file), len(shapes), np.int16)
    for index, shape in reversed(list(enumerate(cheapest_first))):
        fits = (file.source_lengths <= shape.source) & (file.target_lengths <= shape.target)
        choice[fits] = index
    if np.any(choice == len(shapes)):
        raise ValueError(f"{file.folder} has pairs that fit no shape")
    return {
        shape: np.flatnonzero(choice == index).astype(np.int32)
        for index, shape in enumerate(cheapest_first)
    }


def _make_plan(members: _Members, shuffle: Callable[[_Pairs], _Pairs]) -> _Plan:
    """Splits the pairs of each shape into batches.

    A few left-over pairs move up to the next larger shape; more form a batch with empty rows.
    """
    waiting = {shape: [pairs] for shape, pairs in members.items()}
    plan: _Plan = []
    for shape in members:
        pairs = shuffle(np.concatenate(waiting.pop(shape)))
        left_over = len(pairs) % shape.rows
        larger = next((other for other in waiting if _holds(other, shape)), None)
        if larger is not None and 2 * left_over < shape.rows:
            pairs, moved_up = np.split(pairs, [len(pairs) - left_over])
            waiting[larger].append(moved_up)
        filled = np.pad(pairs, (0, -len(pairs) % shape.rows), constant_values=_NO_PAIR)
        plan.extend((shape, batch) for batch in filled.reshape(-1, shape.rows))
    return plan


def _holds(larger: Shape, smaller: Shape) -> bool:
    return larger.source >= smaller.source and larger.target >= smaller.target


def _gather(file: TokenFile, pairs: _Pairs, shape: Shape) -> Batch:
    return Batch(_padded(file, pairs, 0, shape.source), _padded(file, pairs, 1, shape.target))


def _padded(file: TokenFile, pairs: _Pairs, side: int, length: int) -> Int[np.ndarray, "B length"]:
    """Returns the padded ids of one side of the pairs: 0 is the source, 1 the target."""
    sentences = 2 * pairs.astype(np.int64) + side
    starts = file.offsets[sentences]
    lengths = np.where(pairs == _NO_PAIR, 0, file.offsets[sentences + 1] - starts)
    columns = np.arange(length)
    ids = file.tokens.take(starts[:, None] + columns, mode="clip")
    return np.where(columns < lengths[:, None], ids, PAD).astype(np.int32)
