# SPDX-License-Identifier: Apache-2.0
"""From token ids to hypotheses: groups of sentences that need the same room.

Sentences of a group are padded to one length and share a compiled program, longest first; each
device has its part of them.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any

import numpy as np
from jaxtyping import Int

from dat_jax.config import DecodingConfig
from dat_jax.data.vocabulary import PAD, is_blank
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.cost import DecodeCost, total
from dat_jax.decoding.devices import deal, run
from dat_jax.decoding.next_tokens import check_shortlist
from dat_jax.decoding.queue import Queue
from dat_jax.decoding.settings import SearchSettings
from dat_jax.decoding.sizing import Platform, choose_settings, memory_of, platform_of, room_for
from dat_jax.decoding.trained import TrainedModel
from dat_jax.exits.questions import Rule
from dat_jax.runtime.jax_flags import our_modes

Ids = Sequence[int] | Int[np.ndarray, " S"]


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One sentence's best translation."""

    tokens: tuple[int, ...]  # EOS included
    exits: tuple[int, ...]  # the depth that each token exited at
    log_prob: float
    score: float  # log-probability / length ** length_penalty


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The hypotheses of a search, and what it took."""

    hypotheses: tuple[Hypothesis, ...]  # in the order of the sources
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
        on_progress: called with the number of sources that have just been translated.

    Raises:
        UserError: the rule needs no classifier, or not this shortlist.
    """
    check_shortlist(decoding, rule, trained.model.target_vocabulary_size)
    devices = len(trained.devices)
    platform = platform_of(trained.device) if platform is None else platform
    if limits is None:
        limits = [_limit(len(source), decoding) for source in sources]
    limits = [1 if is_blank(ids) else most for ids, most in zip(sources, limits, strict=True)]
    numbers = range(len(sources)) if numbers is None else numbers
    config, memory = trained.model.config, memory_of(trained.device)
    hypotheses: dict[int, Hypothesis] = {}
    costs, all_settings = [], []
    for room, group in _groups(sources, platform.window * devices, platform):
        hands = deal(group, devices)
        most = max(map(len, hands))  # of a device
        length = max(_limit(room, decoding), *(limits[index] for index in group))
        settings = choose_settings(rule, config, decoding, most, room, length, memory, platform)
        known = [[(sources[i], limits[i], numbers[i]) for i in hand] for hand in hands]
        queues = [_queue(sentences, room, platform.window) for sentences in known]
        ran = run(trained, rule, queues, settings)
        for device, hand in enumerate(hands):
            hypotheses |= zip(hand, _unpack(ran.hypotheses, device, len(hand)), strict=True)
        costs.append(ran.cost)
        all_settings.append(settings)
        on_progress(len(group))
    return SearchResult(
        tuple(hypotheses[index] for index in range(len(sources))),
        total(config.decoder_layers, costs),
        tuple(all_settings),
    )


def _groups(
    sources: Sequence[Ids], at_most: int, platform: Platform
) -> Iterator[tuple[int, list[int]]]:
    """Rooms, and `at_most` sources, by their indices, that need so much room; longest first."""
    ordered = sorted(range(len(sources)), key=lambda index: len(sources[index]), reverse=True)
    for room, group in groupby(ordered, key=lambda i: room_for(len(sources[i]), platform)):
        while part := list(islice(group, at_most)):
            yield room, part


def _limit(source_length: int, decoding: DecodingConfig) -> int:
    """The most tokens that a translation may have, EOS counted."""
    return math.floor(decoding.max_length_ratio * source_length) + decoding.max_length_extra


def _queue(sentences: Sequence[tuple[Ids, int, int]], room: int, size: int) -> Queue:
    """Sources of up to `room` tokens, their limits and numbers, in a queue with `size` places."""
    source = np.full((size, room), PAD, np.int32)
    limits, numbers = np.zeros(size, np.int32), np.zeros(size, np.int32)
    for row, (ids, limit, number) in enumerate(sentences):
        source[row, : len(ids)] = ids
        limits[row], numbers[row] = limit, number
    arrays: Any = (source, limits, numbers, np.asarray(len(sentences), np.int32))
    return Queue(*arrays)


def _unpack(best: Hypotheses, device: int, count: int) -> list[Hypothesis]:
    """The first `count` hypotheses of a device."""
    tokens, exits, lengths, log_probs, scores = (leaf[device] for leaf in best)
    return [
        Hypothesis(
            tuple(tokens[row, : lengths[row]].tolist()),
            tuple(exits[row, : lengths[row]].tolist()),
            float(log_probs[row]),
            float(scores[row]),
        )
        for row in range(count)
    ]
