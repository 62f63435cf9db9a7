# SPDX-License-Identifier: Apache-2.0
"""The sentences that fit into a device, known before anything is allocated or compiled."""

import bisect
import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from dat_jax.config import DecodingConfig, ModelConfig
from dat_jax.decoding.memory import memory_of, need_of
from dat_jax.decoding.sizing import Platform, length_for, limit_of, platform_of, room_for
from dat_jax.errors import UserError

_INT32 = np.iinfo(np.int32).max
_SHORTEST = 2  # tokens of a source: a word and EOS
_PLACE = 16  # bytes for each token of a result: ids and exits, and a copy of both
_USUAL = {"beam_size": 5, "max_length_extra": 16, "max_length_ratio": 1.5}


@dataclasses.dataclass(frozen=True)
class Capacity:
    """A device, and the model and the settings that it decodes with."""

    model: ModelConfig
    decoding: DecodingConfig
    memory: int  # bytes that the device has
    platform: Platform
    n_best: int = 0  # hypotheses of a sentence that are returned as a list

    @classmethod
    def of(
        cls, device: jax.Device, model: ModelConfig, decoding: DecodingConfig, n_best: int = 0
    ) -> "Capacity":
        """The capacity of this device."""
        return cls(model, decoding, memory_of(device), platform_of(device), n_best)

    def sentences(self, room: int, length: int) -> int:
        """Returns the most sentences that one search may be given; 0 if not even one fits.

        Args:
            room: for source tokens.
            length: room for target tokens.
        """
        platform, beam_size = self.platform, self.decoding.beam_size
        need = need_of(self.model, beam_size, room, length)
        if sum(need) > self.memory // platform.largest_share:
            return 0
        places = room + max(1, self.n_best) * length
        results = self.memory // platform.share_of_memory // (_PLACE * places)
        # A search counts the rows that it computes in int32, classifiers after each block included.
        rows = self.model.decoder_layers * (4 * beam_size + platform.fewest_rows)
        return min(platform.window, results, _INT32 // (rows * length))

    def holds(self, source_length: int, limit: int) -> bool:
        """True if a source of this length fits, with a translation of up to `limit` tokens."""
        room = room_for(source_length, self.platform)
        return self.sentences(room, length_for(limit, room, self.decoding, self.platform)) > 0

    @property
    def longest_source(self) -> int:
        """The tokens of the longest source that fits, with the translation that it may have."""
        return _most(lambda length: self.holds(length, limit_of(length, self.decoding)))

    def highest_limit(self, source_length: int) -> int:
        """Returns the most tokens that the translation of such a source may be allowed."""
        return _most(lambda limit: self.holds(source_length, limit))

    def check(self) -> None:
        """Makes sure that short sentences fit.

        Raises:
            UserError: they do not; it names the key to change.
        """
        if self.longest_source >= _SHORTEST:
            return
        given = {name: getattr(self.decoding, name) for name in _USUAL}
        for name in sorted(given, key=lambda name: given[name] / _USUAL[name], reverse=True):
            if most := _most(lambda value, name=name: self._with(name, value)):
                raise UserError(
                    f"decoding.{name} is {given[name]}: no sentence fits into {self._memory} of "
                    f"memory then: lower it to {most} or less"
                )
        raise UserError(f"the model does not fit into {self._memory} of memory: use another device")

    def _with(self, name: str, value: int) -> bool:
        """True if short sentences fit where a setting has another value."""
        same_type = type(getattr(self.decoding, name))
        decoding = dataclasses.replace(self.decoding, **{name: same_type(value)})
        other = dataclasses.replace(self, decoding=decoding)
        return other.holds(_SHORTEST, limit_of(_SHORTEST, decoding))

    @property
    def _memory(self) -> str:
        return f"{self.memory / 2**30:.1f} GiB"


def _most(fits: Callable[[int], bool]) -> int:
    """The greatest number that fits, 0 if none does; all below a number that fits do, too."""
    return bisect.bisect_left(range(1, _INT32), True, key=lambda number: not fits(number))
