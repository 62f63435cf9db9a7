# SPDX-License-Identifier: Apache-2.0
"""The sizes of a search: sentences in work, rows and positions to compile for, what is cached.

`docs/design/decoding.md` has the measurements. They are of CPUs; other platforms have not been
timed yet.
"""

import dataclasses
import math

import jax

from dat_jax.config import DecodingConfig, ModelConfig
from dat_jax.decoding.memory import Need, need_of
from dat_jax.decoding.settings import SearchSettings
from dat_jax.exits.questions import Rule, Scope


@dataclasses.dataclass(frozen=True)
class Platform:
    """Sizes that are efficient on one kind of device."""

    window: int = 8_192  # lines that are read, sorted and grouped together
    rows: int = 512  # hypotheses in work where `decoding.batch_size` is 0
    share_of_memory: int = 4  # and no more than fit into this part of the memory: a quarter
    largest_share: int = 2  # of memory, whatever is asked for: programs need more than we count
    share_of_idle: int = 64  # for slots that no sentence needs
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


def limit_of(source_length: int, decoding: DecodingConfig) -> int:
    """The most tokens that a translation may have, EOS counted."""
    proportional = min(decoding.max_length_ratio * source_length, 1 << 31)  # it may be infinite
    return math.floor(proportional) + decoding.max_length_extra


def length_for(limit: int, room: int, decoding: DecodingConfig, platform: Platform) -> int:
    """Room for translations of up to `limit` tokens, of sources in one room.

    It is the next power of two, or less if the longest source of that room may have less: either
    way, few shapes need compiling.
    """
    rounded = max(platform.shortest_room, _power_of_two(limit))
    of_room = limit_of(room, decoding)
    return of_room if limit <= of_room < rounded else rounded


def places_for(sentences: int, platform: Platform) -> int:
    """Places in a queue of sentences: one, or a power of two."""
    return max(_power_of_two(sentences), platform.fewest_slots) if sentences > 1 else 1


def choose_settings(
    rule: Rule,
    model: ModelConfig,
    decoding: DecodingConfig,
    sentences: int,
    source_length: int,
    length: int,
    memory: int,
    platform: Platform,
    n_best: int = 0,
) -> SearchSettings:
    """Chooses the sizes of a search.

    Args:
        rule: when tokens exit.
        model: the model's dimensions.
        decoding: beam, length penalty, and the sentences in work, 0 for as many as are efficient;
            fewer if they do not fit into the memory.
        sentences: how many there are.
        source_length: room for source tokens, S.
        length: room for target tokens, T.
        memory: bytes that the device has.
        platform: of the device.
        n_best: hypotheses of a sentence to return as a list; 0 for no list.
    """
    beam_size, depth = decoding.beam_size, rule.deepest(model.decoder_layers)
    projected = round(depth * platform.projected)
    if not rule.copies_states and projected > 0:
        projected = depth  # no state is copied, so none is projected in vain
    need = need_of(model, beam_size, source_length, length)
    share = platform.largest_share if decoding.batch_size else platform.share_of_memory
    slots = min(
        decoding.batch_size or platform.rows // beam_size,
        _slots_within(memory // share, need, platform),
        places_for(sentences, platform),
        max(_power_of_two(sentences), memory // platform.share_of_idle // need.slot),
    )
    slots = max(1, slots)
    return SearchSettings(
        beam_size=beam_size,
        length_penalty=decoding.length_penalty,
        length=length,
        slots=slots,
        refill=refill_size(slots, source_length, platform),
        sizes=row_sizes(slots * beam_size, platform.fewest_rows, rule.scope),
        shortlist=decoding.shortlist,
        trailing_gap=decoding.trailing_gap if beam_size > 1 else 0.0,
        windows=tuple(sorted({-(-length // part) for part in platform.windows})),
        projected=projected,
        n_best=n_best,
    )


def row_sizes(rows: int, fewest: int, scope: Scope) -> tuple[int, ...]:
    """All rows, 1/2, 3/8, 1/4 and 1/8 of them, quarters of that, and `fewest`: each size compiles
    every block once more, so none is near `fewest`. Where tokens exit together rows become fewer
    only as sentences end: all rows, 1/2 and 1/4 of them, and quarters of that."""
    quarters = [4**power for power in range(rows.bit_length())]
    divisors, smallest = [2, *quarters], rows
    if scope is Scope.TOKEN:
        divisors, smallest = [2, 8 / 3, 4, *(8 * quarter for quarter in quarters)], fewest
    sizes = (math.ceil(rows / divisor) for divisor in divisors)
    large = {size for size in sizes if size >= 2 * fewest}
    return tuple(sorted({rows, min(smallest, rows)} | large))


def refill_size(slots: int, source_length: int, platform: Platform) -> int:
    """Sentences that come in together: enough to fill the encoder, and few enough that the slots
    which wait for them are not missed."""
    encoded = -(-platform.encoded_tokens // source_length)
    return min(slots, max(slots // platform.refilled_share, encoded))


def _slots_within(memory: int, need: Need, platform: Platform) -> int:
    """The slots that fit into this memory, with an encoder for those that come in together."""
    each = need.slot + need.encoder // platform.refilled_share
    return (memory - need.encoder) // each


def _power_of_two(count: int) -> int:
    """The next one: not every number is to compile a program of its own."""
    return 1 << (count - 1).bit_length()
