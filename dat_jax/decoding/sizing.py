# SPDX-License-Identifier: Apache-2.0
"""The sizes of a search: sentences in work, rows and positions to compile for, what is cached.

`docs/design/decoding.md` has the measurements. They are of CPUs; other platforms have not been
timed yet.
"""

import dataclasses
import os

import jax
import jax.numpy as jnp

from dat_jax.config import DecodingConfig, ModelConfig
from dat_jax.decoding.settings import SearchSettings
from dat_jax.exits.questions import Rule, Scope


@dataclasses.dataclass(frozen=True)
class Platform:
    """Sizes that are efficient on one kind of device."""

    window: int = 8_192  # lines that are read, sorted and grouped together
    rows: int = 512  # hypotheses in work where `decoding.batch_size` is 0
    share_of_memory: int = 4  # and no more than fit into this part of the memory: a quarter
    fewest_rows: int = 32  # gathering fewer saves nothing
    fewest_slots: int = 16  # for several sentences: each number of slots compiles a program
    shortest_room: int = 16  # source tokens; rooms are powers of two from here on
    windows: tuple[int, ...] = (1,)  # parts of the room that attention may read: all of it
    refilled_share: int = 8  # an eighth of the slots may wait to be refilled
    encoded_tokens: int = 256  # of sources, with fewer of which the encoder is inefficient
    projected: float = 1.0  # lower part of the blocks that caches keys and values, not states


PLATFORMS = {
    "cpu": Platform(fewest_rows=8, windows=(2, 1)),
    # By its compiler's estimate, products with one query a row are slow on keys and values.
    "tpu": Platform(projected=0.0),
}


def platform_of(device: jax.Device) -> Platform:
    """Sizes for a device."""
    return PLATFORMS.get(device.platform, Platform())


def room_for(source_length: int, platform: Platform) -> int:
    """The next power of two, so that few shapes need compiling."""
    return max(platform.shortest_room, _power_of_two(source_length))


def choose_settings(
    rule: Rule,
    model: ModelConfig,
    decoding: DecodingConfig,
    sentences: int,
    source_length: int,
    length: int,
    memory: int,
    platform: Platform,
) -> SearchSettings:
    """Chooses the sizes of a search.

    Args:
        rule: when tokens exit.
        model: the model's dimensions.
        decoding: beam, length penalty, and the sentences in work, 0 for as many as are efficient.
        sentences: how many there are.
        source_length: room for source tokens, S.
        length: room for target tokens, T.
        memory: bytes that the device has.
        platform: of the device.
    """
    beam_size, depth = decoding.beam_size, rule.deepest(model.decoder_layers)
    projected = round(depth * platform.projected)
    if rule.scope is not Scope.TOKEN and projected > 0:
        projected = depth  # no state is copied, so none is projected in vain
    slots = decoding.batch_size
    if slots == 0:
        of_one = _slot_bytes(model, depth, beam_size, source_length, length)
        fit = memory // platform.share_of_memory // of_one
        slots = max(1, min(platform.rows // beam_size, fit))
    several = max(_power_of_two(sentences), platform.fewest_slots) if sentences > 1 else 1
    slots = min(slots, several)
    return SearchSettings(
        beam_size=beam_size,
        length_penalty=decoding.length_penalty,
        length=length,
        slots=slots,
        refill=refill_size(slots, source_length, platform),
        sizes=row_sizes(slots * beam_size, platform.fewest_rows, rule.scope),
        shortlist=decoding.shortlist,
        windows=tuple(sorted({-(-length // part) for part in platform.windows})),
        projected=projected,
    )


def row_sizes(rows: int, fewest: int, scope: Scope) -> tuple[int, ...]:
    """All rows, half and a quarter of them, and quarters of that down to `fewest`: each size
    compiles every block once more. Where tokens exit together rows become fewer only as sentences
    end, and all rows and a quarter are enough."""
    divisors = [1, 2, 4, *(4**power for power in range(2, rows.bit_length()))]
    if scope is not Scope.TOKEN:
        divisors = [1, 4]
    return tuple(sorted({max(min(fewest, rows), -(-rows // divisor)) for divisor in divisors}))


def refill_size(slots: int, source_length: int, platform: Platform) -> int:
    """Sentences that come in together: enough to fill the encoder, and few enough that the slots
    which wait for them are not missed."""
    encoded = -(-platform.encoded_tokens // source_length)
    return min(slots, max(slots // platform.refilled_share, encoded))


def memory_of(device: jax.Device) -> int:
    """Bytes of memory that the device has, or the machine if it does not say."""
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _slot_bytes(
    model: ModelConfig, depth: int, beam_size: int, source_length: int, length: int
) -> int:
    """The most that the caches of a sentence take: keys and values of this many blocks."""
    positions = 2 * (beam_size * length + source_length) * depth
    return positions * model.decoder_dim * jnp.dtype(model.dtype).itemsize


def _power_of_two(count: int) -> int:
    """The next one: not every number is to compile a program of its own."""
    return 1 << (count - 1).bit_length()
