# SPDX-License-Identifier: Apache-2.0
"""The memory of a device, and how much of it a sentence needs."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.config import ModelConfig

# A container's limit, in versions 2 and 1 of Linux's control groups.
_CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_FLOAT32 = 4  # bytes


class Need(NamedTuple):
    """Bytes that one sentence needs."""

    slot: int  # while it is in work
    encoder: int  # while its source is encoded


def memory_of(device: jax.Device) -> int:
    """Returns the bytes that the device has; one that does not say has its share of the machine's
    memory or the container's."""
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit") or _machine_memory() // jax.local_device_count()


def need_of(model: ModelConfig, beam_size: int, source_length: int, length: int) -> Need:
    """Returns the most that a sentence needs.

    In work it needs the keys and values of all blocks, and those that one block gathers. The
    encoder needs the scores and the weights of its attention in float32, and a copy for products.

    Args:
        model: the model's dimensions.
        beam_size: hypotheses of a sentence, J.
        source_length: room for source tokens, S.
        length: room for target tokens, T.
    """
    positions = 2 * (beam_size * length + source_length) * (model.decoder_layers + 1)
    slot = positions * model.decoder_dim * jnp.dtype(model.dtype).itemsize
    return Need(slot, 3 * source_length**2 * model.encoder_heads * _FLOAT32)


def _machine_memory() -> int:
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CONTAINER:
        with contextlib.suppress(OSError, ValueError):  # there is no such file, or no limit
            found.append(int(Path(path).read_text()))
    return min(found)
