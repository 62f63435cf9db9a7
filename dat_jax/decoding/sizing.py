# SPDX-License-Identifier: Apache-2.0
"""Which engine decodes, and how much of the work at a time: all that was found by measuring.

`docs/decisions.md` has the measurements. They are of CPUs; a platform on which nothing has been
timed yet has the same sizes, and `auto` chooses the reference there.
"""

import dataclasses
import os
from typing import Literal, NamedTuple

import jax

from dat_jax.config import DecodingConfig
from dat_jax.exits.questions import Rule, Scope
from dat_jax.model.attention import AttendedForm

Engine = Literal["continuous", "lockstep"]


@dataclasses.dataclass(frozen=True)
class Platform:
    """Sizes that were found to be efficient on one kind of device."""

    window: int = 8_192  # lines that are read, sorted and grouped together
    fewest_slots: int = 16  # of several sentences in lockstep: each size compiles a program
    shortest_room: int = 16  # source tokens; rooms are powers of two from here on
    cohorts: int = 6  # in a pool: with fewer, ticks run half empty
    fewest_cohorts: int = 3  # where more would have few rows
    efficient_rows: int = 64  # with fewer, products are inefficient
    refilled_share: int = 8  # an eighth of the slots may wait to be refilled
    encoded_tokens: int = 256  # of sources, with fewer of which the encoder is inefficient
    attended: AttendedForm = "keys_values"  # how what tokens attend to is stored
    share_of_memory: int = 4  # the pool takes a quarter at the most
    continuous_rows: int | None = None  # hypotheses from which continuous pays; None: not timed
    deepest: float = 0.75  # of all blocks on average; beyond, lockstep is as fast


PLATFORMS = {
    "cpu": Platform(continuous_rows=256),
    # Not timed yet. By its compiler's estimate, products with one query a row are slow there.
    "tpu": Platform(attended="states"),
}


class Choice(NamedTuple):
    """The engine that decodes a group of sentences, and why."""

    engine: Engine
    reason: str


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """All that a compiled search depends on beside the model and the rule's class."""

    beam_size: int  # hypotheses of a sentence, J
    length_penalty: float  # the exponent of the length that divides a log-probability
    length: int  # room for tokens, T; no limit may be greater
    slots: int  # sentences in work at a time, G
    refill: int  # sentences that come in together
    cohort: int  # rows that run together, a multiple of J; in lockstep, all
    attended: AttendedForm  # how what tokens attend to is stored


def platform_of(name: str) -> Platform:
    """Sizes for a platform, by the name that JAX has for it."""
    return PLATFORMS.get(name, Platform())


def choose_engine(
    asked: Literal["auto", "continuous", "lockstep"],
    rule: Rule,
    rows: int,
    share_of_blocks: float,
    platform: Platform,
) -> Choice:
    """The engine that was asked for; with `auto`, the one that is faster as far as one can know.

    The continuous engine is not where all tokens exit at one depth, which leaves nothing to sort
    them by; nor with few rows, which hardly ever meet at a stage; nor where exits are deep.

    Args:
        asked: `decoding.engine`.
        rule: when tokens exit.
        rows: hypotheses of all sentences that need the same room.
        share_of_blocks: that tokens were found to need so far; 0 if nothing is known yet.
        platform: of the device that decodes.
    """
    if asked != "auto":
        return Choice(asked, "asked for")
    if platform.continuous_rows is None:
        return Choice("lockstep", "continuous has not been timed on this kind of device")
    if rule.scope is Scope.TEXT:
        return Choice("lockstep", "all tokens exit at one depth")
    if rows < platform.continuous_rows:
        return Choice(
            "lockstep", f"fewer than {platform.continuous_rows} hypotheses need the same room"
        )
    if is_deep(share_of_blocks, platform):
        return Choice("lockstep", f"tokens needed more than {platform.deepest:.0%} of the blocks")
    return Choice(
        "continuous", f"{platform.continuous_rows} hypotheses or more, no sign of deep exits"
    )


def is_deep(share_of_blocks: float, platform: Platform) -> bool:
    """True if exits after this share of the blocks, on average, leave too little to save."""
    return share_of_blocks > platform.deepest


def room_for(source_length: int, platform: Platform) -> int:
    """The next power of two, so that few shapes need compiling."""
    return max(platform.shortest_room, _power_of_two(source_length))


def _power_of_two(count: int) -> int:
    """The next one: not every number is to compile a program of its own."""
    return 1 << (count - 1).bit_length()


def choose_settings(
    engine: Engine,
    decoding: DecodingConfig,
    sentences: int,
    source_length: int,
    length: int,
    most_slots: int,
    platform: Platform,
) -> SearchSettings:
    """Sizes as they were asked for, and no more than the sentences or the memory can fill.

    Args:
        engine: that decodes.
        decoding: beam, length penalty, and the sizes that were asked for, 0 being as is best.
        sentences: how many there are.
        source_length: room for source tokens, S.
        length: room for target tokens, T.
        most_slots: sentences that there is memory for; it bounds a pool.
        platform: of the device that decodes.
    """
    beam_size = decoding.beam_size
    if engine == "lockstep":
        several = max(_power_of_two(sentences), platform.fewest_slots) if sentences > 1 else 1
        slots = min(decoding.batch_size, several)
        cohort = slots * beam_size
    else:
        slots, cohort = _pool_and_cohort(decoding, sentences, most_slots, platform)
    return SearchSettings(
        beam_size=beam_size,
        length_penalty=decoding.length_penalty,
        length=length,
        slots=slots,
        refill=refill_size(slots, source_length, platform),
        cohort=cohort,
        attended=platform.attended,
    )


def _pool_and_cohort(
    decoding: DecodingConfig, sentences: int, most_slots: int, platform: Platform
) -> tuple[int, int]:
    """Sentences in the pool, and rows that a tick runs."""
    beam_size = decoding.beam_size
    most_rows = decoding.cohort_size or default_cohort(decoding, platform)
    wanted = decoding.pool_size or -(-platform.cohorts * most_rows // beam_size)
    slots = max(1, min(wanted, most_slots, _power_of_two(sentences)))
    rows = slots * beam_size
    if not decoding.pool_size:
        at_most = min(platform.efficient_rows, -(-rows // platform.fewest_cohorts))
        rows = max(-(-rows // platform.cohorts), at_most)
    rows = min(most_rows, rows)
    return slots, -(-rows // beam_size) * beam_size


def default_cohort(decoding: DecodingConfig, platform: Platform) -> int:
    """Rows of a cohort: as many as a batch has sentences; of a beam, where there are more, as many
    as are efficient."""
    batch_size = decoding.batch_size
    return max(batch_size, min(batch_size * decoding.beam_size, platform.efficient_rows))


def refill_size(slots: int, source_length: int, platform: Platform) -> int:
    """Sentences that come in together: enough to fill the encoder, and few enough that the slots
    which wait for them are not missed."""
    encoded = -(-platform.encoded_tokens // source_length)
    return min(slots, max(slots // platform.refilled_share, encoded))


def memory_of(device: jax.Device) -> int:
    """Bytes of memory that the device has, or the machine if it does not say."""
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
