# SPDX-License-Identifier: Apache-2.0
"""Batches hold each pair once per epoch, in a few shapes, in a resumable order."""

import collections
import itertools
from collections.abc import Iterable
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from dat_jax.data.batching import Batch, BatchIterator, one_pass, shapes_for
from dat_jax.data.shapes import Shape
from dat_jax.data.sources.generated import GeneratedCorpus
from dat_jax.data.tokens import Limits, TokenFile, write_tokens
from dat_jax.data.vocabulary import EOS, PAD, Vocabularies, Vocabulary, train_vocabulary


class InMemory(TokenFile):
    """Pairs of these lengths; all ids of a pair equal its number, from 1."""

    def __init__(self, lengths: list[tuple[int, int]]) -> None:
        self.folder, self._pairs = Path("memory"), len(lengths)
        self.offsets = np.concatenate([[0], np.cumsum(np.ravel(lengths))])
        numbers = np.arange(1, len(lengths) + 1, dtype=np.uint16)
        self.tokens = np.repeat(numbers, np.sum(lengths, axis=1))

    def __len__(self) -> int:
        return self._pairs


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> TokenFile:
    pairs = list(GeneratedCorpus(1_000, seed=0).pairs("train"))
    vocabulary = Vocabulary(train_vocabulary(itertools.chain.from_iterable(pairs), 250, "bpe"))
    folder = tmp_path_factory.mktemp("data") / "train"
    return write_tokens(folder, pairs, Vocabularies(vocabulary, vocabulary), Limits(200))


@pytest.fixture(scope="module")
def shapes(file: TokenFile) -> list[Shape]:
    return shapes_for([file], num_shapes=4, batch_tokens=1_024, row_multiple=4)


def pairs_in(batches: Iterable[Batch]) -> collections.Counter:
    """Counts the pairs, as ids without padding."""
    return collections.Counter(
        (tuple(source[source != PAD]), tuple(target[target != PAD]))
        for batch in batches
        for source, target in zip(*batch, strict=True)
        if source.any()
    )


def epoch(batches: BatchIterator) -> list[Batch]:
    return [next(batches) for _ in range(batches.batches_per_epoch)]


def same(one: Iterable[Batch], other: Iterable[Batch]) -> bool:
    return all(
        np.array_equal(a.source, b.source) and np.array_equal(a.target, b.target)
        for a, b in zip(one, other, strict=True)
    )


def test_each_pair_comes_once_per_epoch(file: TokenFile, shapes: list[Shape]) -> None:
    expected = collections.Counter(
        (tuple(s), tuple(t)) for s, t in map(file.__getitem__, range(len(file)))
    )
    batches = BatchIterator(file, shapes, seed=0)
    assert pairs_in(epoch(batches)) == expected
    assert pairs_in(epoch(batches)) == expected
    assert pairs_in(one_pass(file, shapes)) == expected


def test_rows_are_ids_then_eos_then_padding(file: TokenFile, shapes: list[Shape]) -> None:
    for batch in epoch(BatchIterator(file, shapes, seed=0)):
        for side in batch:
            assert side.dtype == np.int32
            lengths = (side != PAD).sum(axis=1)
            np.testing.assert_array_equal(side != PAD, np.arange(side.shape[1]) < lengths[:, None])
            full = lengths > 0
            assert (side[full, lengths[full] - 1] == EOS).all()


def test_batches_have_the_chosen_shapes(file: TokenFile, shapes: list[Shape]) -> None:
    batches = BatchIterator(file, shapes, seed=0)
    for batch in itertools.chain(epoch(batches), one_pass(file, shapes)):
        assert Shape(len(batch.source), batch.source.shape[1], batch.target.shape[1]) in shapes


def test_the_order_depends_only_on_seed_and_epoch(file: TokenFile, shapes: list[Shape]) -> None:
    batches = BatchIterator(file, shapes, seed=3)
    first, second = epoch(batches), epoch(batches)
    assert not same(first, second)
    assert same(first, epoch(BatchIterator(file, shapes, seed=3)))
    assert not same(first, epoch(BatchIterator(file, shapes, seed=4)))
    state = {"seed": 3, "epoch": 1, "next_batch": 0}
    assert same(second, epoch(BatchIterator(file, shapes, seed=3, state=state)))


@pytest.mark.parametrize("done", [0, 5, "epoch", "epoch and 3"])
def test_resuming_gives_the_same_batches(
    file: TokenFile, shapes: list[Shape], done: int | str
) -> None:
    batches = BatchIterator(file, shapes, seed=1)
    per_epoch = batches.batches_per_epoch
    for _ in range(
        {"epoch": per_epoch, "epoch and 3": per_epoch + 3}.get(str(done), 0) or int(done)
    ):
        next(batches)
    state = batches.state
    assert list(state) == ["seed", "epoch", "next_batch"]
    assert all(type(value) is int for value in state.values())
    resumed = BatchIterator(file, shapes, seed=1, state=state)
    assert same(epoch(batches), epoch(resumed))
    assert batches.state == resumed.state


def test_state_of_another_seed_is_refused(file: TokenFile, shapes: list[Shape]) -> None:
    state = BatchIterator(file, shapes, seed=1).state
    with pytest.raises(ValueError, match="seed 1, not 2"):
        BatchIterator(file, shapes, seed=2, state=state)


def test_a_pair_that_fits_no_shape_is_refused(file: TokenFile) -> None:
    with pytest.raises(ValueError, match="fit no shape"):
        BatchIterator(file, [Shape(8, 10, 10)], seed=0)


@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=60),
    num_shapes=st.integers(1, 5),
    row_multiple=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_each_pair_comes_once_per_epoch_for_random_lengths(
    lengths: list[tuple[int, int]], num_shapes: int, row_multiple: int, seed: int
) -> None:
    file = InMemory(lengths)
    batches = BatchIterator(file, shapes_for([file], num_shapes, 240, row_multiple), seed)
    for _ in range(2):
        pairs = collections.Counter()
        for batch in itertools.islice(batches, batches.batches_per_epoch):
            rows = [row for row in np.hstack(batch) if row.any()]
            pairs.update(int(row[0]) for row in rows)
            assert all(side.shape[0] % row_multiple == 0 for side in batch)
            assert max(side.size for side in batch) <= 240
        assert pairs == dict.fromkeys(range(1, len(lengths) + 1), 1)


def test_the_pairs_of_an_earlier_batch_can_be_looked_up(
    file: TokenFile, shapes: list[Shape]
) -> None:
    batches = BatchIterator(file, shapes, seed=3)
    returned = [(next(batches), batches.last) for _ in range(2 * batches.batches_per_epoch)]
    for batch, place in returned:
        pairs = batches.pairs_of(*place)
        assert len(pairs) == batch.source.any(axis=1).sum()
        for row, pair in enumerate(pairs):
            source, target = file[int(pair)]
            np.testing.assert_array_equal(batch.source[row, : len(source)], source)
            np.testing.assert_array_equal(batch.target[row, : len(target)], target)


def test_empty_rows_are_few(file: TokenFile, shapes: list[Shape]) -> None:
    batches = epoch(BatchIterator(file, shapes, seed=0))
    empty = sum(int((~batch.source.any(axis=1)).sum()) for batch in batches)
    assert empty < 0.5 * sum(shape.rows for shape in shapes) + max(shape.rows for shape in shapes)


@pytest.mark.parametrize(("short", "batches"), [(4, [4, 2]), (5, [4, 3]), (6, [4, 2, 2])])
def test_a_few_left_over_pairs_move_up_to_the_next_shape(short: int, batches: list[int]) -> None:
    """One of five pairs does; two of six have a batch of their own, with two empty rows."""
    small, large = Shape(4, 3, 3), Shape(4, 9, 9)
    file = InMemory([(2, 2)] * short + [(8, 8)] * 2)
    found = list(one_pass(file, [small, large]))
    assert [int(batch.source.any(axis=1).sum()) for batch in found] == batches
    assert [len(batch.source[0]) for batch in found] == [3] * (len(found) - 1) + [9]


def test_changing_a_batch_does_not_change_the_data(file: TokenFile, shapes: list[Shape]) -> None:
    assert isinstance(file.folder, Path)
    batch = next(BatchIterator(file, shapes, seed=0))
    batch.source[:] = 7  # the caller owns the batch
    assert (next(BatchIterator(file, shapes, seed=0)).source != 7).any()
