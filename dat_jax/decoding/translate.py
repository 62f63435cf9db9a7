# SPDX-License-Identifier: Apache-2.0
"""From lines of text to translations in the same order, by way of sentences of similar length.

Lines are read a window at a time, so that memory does not depend on how many there are. In a window
they are sorted by length and grouped by the room that they need; each group goes through an engine.
"""

import dataclasses
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from dat_jax.config import DecodingConfig
from dat_jax.data.dataset import Dataset
from dat_jax.data.vocabulary import EOS, PAD
from dat_jax.decoding import continuous, lockstep
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.queue import Queue
from dat_jax.decoding.schedule import choose_sizes, default_cohort, pays, refill_size
from dat_jax.decoding.work import Work, share_of_blocks, sum_work
from dat_jax.exits.policies import Policy
from dat_jax.model.transformer import Transformer
from dat_jax.types import Params

_WINDOW = 8_192  # lines
_SHORTEST_SOURCE = 16
_SHARE_OF_MEMORY = 4  # the pool takes a quarter at the most


@dataclasses.dataclass(frozen=True)
class Translation:
    """One sentence's best hypothesis."""

    text: str
    pieces: tuple[str, ...]  # EOS included; none for an empty sentence
    exits: tuple[int, ...]  # the depth that each piece exited at
    score: float  # log-probability / length ** length_penalty
    source_length: int  # pieces of the source, EOS included


@dataclasses.dataclass(frozen=True)
class Translations:
    """The translations of some text, in its order, and what it took to make them."""

    sentences: tuple[Translation, ...]
    seconds: float
    work: Work  # of numpy arrays
    engines: Counter[str]  # how many sentences each engine decoded
    cut: int  # sources that were cut to data.max_length


@dataclasses.dataclass(frozen=True)
class Translator:
    """A model with all that it needs to translate text."""

    model: Transformer
    params: Params
    dataset: Dataset
    policy: Policy
    decoding: DecodingConfig

    def translate(self, lines: Sequence[str], description: str = "translating") -> Translations:
        """Translates all lines; see `stream`."""
        parts = list(self.stream(lines, description, len(lines)))
        return Translations(
            sentences=tuple(sentence for part in parts for sentence in part.sentences),
            seconds=sum((part.seconds for part in parts), 0.0),
            work=sum_work(self.model.config.num_layers, (part.work for part in parts)),
            engines=sum((part.engines for part in parts), Counter()),
            cut=sum(part.cut for part in parts),
        )

    def stream(
        self,
        lines: Iterable[str],
        description: str = "translating",
        total: int | None = None,
    ) -> Iterator[Translations]:
        """Translates lines as they are read, and yields them in order, thousands at a time.

        An empty line stays empty. Lines longer than `data.max_length` pieces are cut there, and
        counted. A progress bar shows on a terminal, with the time left if `total` lines are known
        to come.
        """
        lines, done = iter(lines), 0
        work = sum_work(self.model.config.num_layers, [])
        with tqdm(
            total=total,
            desc=description,
            unit="sentence",
            dynamic_ncols=True,
            leave=False,
            disable=not sys.stderr.isatty(),
        ) as bar:
            while window := list(islice(lines, _WINDOW)):
                part = self._translate_window(window, done, work, bar)
                yield part
                done += len(window)
                work = sum_work(self.model.config.num_layers, [work, part.work])

    def _translate_window(
        self, lines: list[str], done: int, before: Work, bar: tqdm
    ) -> Translations:
        """Translates lines after so many that are done, and the work that these took."""
        started = time.monotonic()
        sources = self.dataset.source_vocabulary.encode(lines)
        max_length = self.dataset.config.max_length
        cut = sum(len(source) > max_length for source in sources)
        sources = [
            source if len(source) <= max_length else [*source[: max_length - 1], EOS]
            for source in sources
        ]
        translations = [Translation("", (), (), 0.0, len(source)) for source in sources]
        spoken = [index for index, line in enumerate(lines) if line.strip()]
        bar.update(len(lines) - len(spoken))
        works, engines = [], Counter[str]()
        for group in self._groups(spoken, sources):
            chosen = [sources[index] for index in group]
            numbers = [done + index for index in group]
            so_far = sum_work(self.model.config.num_layers, [before, *works])
            engine, found, work = self._decode(chosen, numbers, share_of_blocks(so_far))
            for row, index in enumerate(group):
                translations[index] = self._translation(found, row, len(sources[index]))
            works.append(work)
            engines[engine] += len(group)
            bar.update(len(group))
        seconds = time.monotonic() - started
        work = sum_work(self.model.config.num_layers, works)
        return Translations(tuple(translations), seconds, work, engines, cut)

    def _groups(self, lines: list[int], sources: list[list[int]]) -> list[list[int]]:
        """Lines, by their indices, that need the same room, longest first."""
        ordered = sorted(lines, key=lambda index: len(sources[index]), reverse=True)
        by_room = groupby(ordered, key=lambda index: _room(len(sources[index])))
        return [list(group) for _, group in by_room]

    def _decode(
        self, sources: list[list[int]], numbers: list[int], share: float
    ) -> tuple[str, Hypotheses, Work]:
        """Decodes sources that need the same room, longest first, by the engine that is faster,
        given the share of the blocks that tokens needed so far."""
        room = _room(len(sources[0]))
        queue = self._queue(sources, numbers, room)
        rows = len(sources) * self.decoding.beam_size
        continuously = self.decoding.engine == "continuous" and pays(
            rows, self.policy.signal, share
        )
        decode = self._decode_continuously if continuously else self._decode_in_lockstep
        hypotheses, work = decode(queue, len(sources), self._limit(room))
        hypotheses = jax.tree.map(lambda leaf: np.asarray(leaf)[: len(sources)], hypotheses)
        return "continuous" if continuously else "lockstep", hypotheses, work

    def _decode_continuously(
        self, queue: Queue, count: int, max_length: int
    ) -> tuple[Hypotheses, Work]:
        decoding, source_length = self.decoding, queue.source.shape[1]
        sizes = choose_sizes(
            count,
            decoding.beam_size,
            decoding.cohort_size or default_cohort(decoding.batch_size, decoding.beam_size),
            decoding.pool_size,
            _memory() // _SHARE_OF_MEMORY // self._bytes_per_sentence(source_length, max_length),
        )
        return continuous.search(
            self.model,
            self.params,
            queue,
            policy=self.policy,
            beam_size=decoding.beam_size,
            length_penalty=decoding.length_penalty,
            max_length=max_length,
            cohort_size=sizes.cohort,
            slots=sizes.slots,
            refill=refill_size(sizes.slots, source_length),
        )

    def _decode_in_lockstep(
        self, queue: Queue, count: int, max_length: int
    ) -> tuple[Hypotheses, Work]:
        slots = min(self.decoding.batch_size, count)
        return lockstep.search(
            self.model,
            self.params,
            queue,
            policy=self.policy,
            beam_size=self.decoding.beam_size,
            length_penalty=self.decoding.length_penalty,
            max_length=max_length,
            slots=slots,
            refill=refill_size(slots, queue.source.shape[1]),
        )

    def _limit(self, source_length: int) -> int:
        """The most pieces that a translation may have, EOS counted."""
        decoding = self.decoding
        return math.floor(decoding.max_length_ratio * source_length) + decoding.max_length_extra

    def _queue(self, sources: list[list[int]], numbers: list[int], room: int) -> Queue:
        """Sources of up to `room` pieces, in a queue that has place for a whole window."""
        padded = np.full((_WINDOW, room), PAD, np.int32)
        limits, all_numbers = np.zeros(_WINDOW, np.int32), np.zeros(_WINDOW, np.int32)
        for row, source in enumerate(sources):
            padded[row, : len(source)] = source
        limits[: len(sources)] = [self._limit(len(source)) for source in sources]
        all_numbers[: len(sources)] = numbers
        arrays = (padded, limits, all_numbers, np.int32(len(sources)))
        return Queue(*map(jnp.asarray, arrays))

    def _bytes_per_sentence(self, source_length: int, length: int) -> int:
        """What a slot of the pool takes: the states of its rows, the memory's keys and values."""
        config = self.model.config
        states = self.decoding.beam_size * length * (config.num_layers + 1)
        memory = 2 * source_length * config.num_layers
        return (states + memory) * config.decoder_dim * jnp.dtype(config.dtype).itemsize

    def _translation(self, found: Hypotheses, row: int, source_length: int) -> Translation:
        end = int(found.lengths[row])
        tokens = np.asarray(found.tokens)[row, :end]
        vocabulary = self.dataset.target_vocabulary
        return Translation(
            text=vocabulary.decode(tokens),
            pieces=tuple(vocabulary.pieces(tokens)),
            exits=tuple(map(int, found.exits[row, :end])),
            score=float(found.scores[row]),
            source_length=source_length,
        )


def _room(length: int) -> int:
    """The next power of two, so that few shapes need compiling."""
    return max(_SHORTEST_SOURCE, 1 << (length - 1).bit_length())


def _memory() -> int:
    """Bytes of memory that the device has, or the machine if it does not say."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
