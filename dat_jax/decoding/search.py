# SPDX-License-Identifier: Apache-2.0
"""From token ids to hypotheses: groups of sentences that need the same room.

Sentences of a group are padded to one length and share a compiled program, longest first; each
device has its part of them.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from jaxtyping import Int

from dat_jax.config import DecodingConfig
from dat_jax.data.vocabulary import PAD, is_blank
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.capacity import Capacity
from dat_jax.decoding.cost import DecodeCost, total
from dat_jax.decoding.devices import deal, run
from dat_jax.decoding.inputs import read_n_best
from dat_jax.decoding.memory import memory_of
from dat_jax.decoding.queue import Queue
from dat_jax.decoding.rule_settings import check_rule_settings
from dat_jax.decoding.settings import SearchSettings
from dat_jax.decoding.sizing import (
    Platform,
    choose_settings,
    length_for,
    limit_of,
    places_for,
    platform_of,
    room_for,
)
from dat_jax.decoding.trained import TrainedModel
from dat_jax.errors import UserError
from dat_jax.exits.questions import Rule
from dat_jax.runtime.jax_flags import our_modes

Ids = Sequence[int] | Int[np.ndarray, " S"]


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One translation of a sentence."""

    tokens: tuple[int, ...]  # EOS included
    exits: tuple[int, ...]  # the depth that each token exited at
    log_prob: float
    score: float  # log-probability / length ** length_penalty
    n_best: "tuple[Hypothesis, ...]" = ()  # if asked for: the best of its sentence, first of all it


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The hypotheses of a search, and what it took."""

    hypotheses: tuple[Hypothesis, ...]  # the best of each source, in the order of the sources
    cost: DecodeCost
    settings: tuple[SearchSettings, ...]  # of each group


@our_modes()
def search(
    trained: TrainedModel,
    rule: Rule,
    sources: Sequence[Ids],
    decoding: DecodingConfig,
    *,
    limits: Sequence[int] | None = None,
    numbers: Sequence[int] | None = None,
    platform: Platform | None = None,
    n_best: int = 0,
    on_progress: Callable[[int], object] = lambda _: None,
) -> SearchResult:
    """Translates sources by beam search.

    Args:
        trained: the model.
        rule: when tokens exit.
        sources: token ids that end with EOS.
        decoding: how to search; its policy is not looked at.
        limits: the most tokens of each translation, EOS counted; by default as `decoding` says.
            A source without text has none either: its limit is 1.
        numbers: of the sources in their text, from which chance follows; by default 0, 1 and so on.
        platform: sizes to use; by default those of the model's device.
        n_best: how many hypotheses each sentence's list has, up to the beam size, or fewer if fewer
            are found; 0 or 1 for no list.
        on_progress: called with the number of sources that have just been translated.

    Raises:
        UserError: the rule cannot use one of the settings; `n_best` is impossible; or a source, or
            a translation of the allowed length, does not fit into the device's memory.
    """
    check_rule_settings(decoding, rule, trained.model.target_vocabulary_size)
    n_best = read_n_best(n_best, decoding.beam_size)
    devices = len(trained.devices)
    platform = platform_of(trained.device) if platform is None else platform
    config, memory = trained.model.config, memory_of(trained.device)
    capacity = Capacity(config, decoding, memory, platform, n_best)
    limits = _checked_limits(sources, limits, capacity)
    numbers = range(len(sources)) if numbers is None else numbers
    hypotheses: dict[int, Hypothesis] = {}
    costs, all_settings = [], []
    for room, length, group in _groups(sources, limits, capacity, devices):
        hands = deal(group, devices)
        most = max(map(len, hands))  # of a device
        settings = choose_settings(
            rule, config, decoding, most, room, length, memory, platform, n_best
        )
        known = [[(sources[i], limits[i], numbers[i]) for i in hand] for hand in hands]
        queues = [_queue(sentences, room, places_for(most, platform)) for sentences in known]
        ran = run(trained, rule, queues, settings)
        for device, hand in enumerate(hands):
            found = Hypotheses(*(leaf[device] for leaf in ran.hypotheses))
            hypotheses |= zip(hand, _unpack(found, len(hand), n_best), strict=True)
        costs.append(ran.cost)
        all_settings.append(settings)
        on_progress(len(group))
    return SearchResult(
        tuple(hypotheses[index] for index in range(len(sources))),
        total(config.decoder_layers, costs),
        tuple(all_settings),
    )


def _checked_limits(
    sources: Sequence[Ids], limits: Sequence[int] | None, capacity: Capacity
) -> list[int]:
    """The most tokens of each translation: those that are given, or as the settings say.

    Raises:
        UserError: one does not fit into memory, or its source does not.
    """
    capacity.check()
    longest, decoding = capacity.longest_source, capacity.decoding
    asked = [limit_of(len(ids), decoding) for ids in sources] if limits is None else limits
    checked = []
    for index, (ids, limit) in enumerate(zip(sources, asked, strict=True)):
        limit = 1 if is_blank(ids) else limit
        fits = len(ids) <= longest if limits is None else capacity.holds(len(ids), limit)
        if not fits:
            highest = 0 if limits is None else capacity.highest_limit(len(ids))
            if highest:
                raise UserError(
                    f"limits has {limit} at {index}: memory allows for {highest} with its source "
                    f"of {len(ids)} tokens: lower it"
                )
            raise UserError(
                f"source {index} has {len(ids)} tokens, and {longest} fit into memory: split it, "
                f"or set max_source_length to {longest} or less to cut it"
            )
        checked.append(limit)
    return checked


def _groups(
    sources: Sequence[Ids], limits: Sequence[int], capacity: Capacity, devices: int
) -> Iterator[tuple[int, int, list[int]]]:
    """Groups of sources, by their indices, that are searched together; longest first.

    Yields:
        Room for the tokens of each source, and of each translation; the indices.
    """
    platform = capacity.platform
    ordered = sorted(range(len(sources)), key=lambda index: len(sources[index]), reverse=True)
    for room, members in groupby(ordered, key=lambda i: room_for(len(sources[i]), platform)):
        alike = list(members)
        highest = max(limits[index] for index in alike)
        length = length_for(highest, room, capacity.decoding, platform)
        at_most = devices * capacity.sentences(room, length)
        for first in range(0, len(alike), at_most):
            yield room, length, alike[first : first + at_most]


def _queue(sentences: Sequence[tuple[Ids, int, int]], room: int, size: int) -> Queue:
    """Sources of up to `room` tokens, their limits and numbers, in a queue with `size` places."""
    source = np.full((size, room), PAD, np.int32)
    limits, numbers = np.zeros(size, np.int32), np.zeros(size, np.int32)
    for row, (ids, limit, number) in enumerate(sentences):
        source[row, : len(ids)] = ids
        limits[row], numbers[row] = limit, number
    arrays: Any = (source, limits, numbers, np.asarray(len(sentences), np.int32))
    return Queue(*arrays)


def _unpack(found: Hypotheses, count: int, n_best: int) -> list[Hypothesis]:
    """The best hypotheses of the first `count` sentences of a device, with their lists, if any."""
    if not n_best:
        return [_hypothesis(found, (row,)) for row in range(count)]
    lists = [
        tuple(_hypothesis(found, (row, rank)) for rank in range(max(1, num_found)))
        for row, num_found in enumerate((found.lengths[:count] > 0).sum(axis=1))
    ]
    return [dataclasses.replace(ranked[0], n_best=ranked) for ranked in lists]


def _hypothesis(found: Hypotheses, place: tuple[int, ...]) -> Hypothesis:
    """The hypothesis at a place of arrays."""
    tokens, exits, length, log_prob, score = (leaf[place] for leaf in found)
    return Hypothesis(
        tuple(tokens[:length].tolist()),
        tuple(exits[:length].tolist()),
        float(log_prob),
        float(score),
    )
