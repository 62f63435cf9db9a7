# SPDX-License-Identifier: Apache-2.0
"""What fits into a device's memory: exact bounds, and errors that name the key to lower."""

import dataclasses
import os
import re
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given

from dat_jax.decoding import engine
from dat_jax.decoding.capacity import Capacity
from dat_jax.decoding.devices import _peak_bytes
from dat_jax.decoding.memory import memory_of, need_of
from dat_jax.decoding.queue import Queue
from dat_jax.decoding.sizing import Platform, choose_settings, length_for, limit_of, room_for
from dat_jax.decoding.unstacked import unstack
from dat_jax.errors import UserError
from dat_jax.exits.rules import Fixed
from dat_jax.model.transformer import Transformer, init_params
from tests.tiny import tiny_config

CONFIG = tiny_config(decoding={"beam_size": 5, "max_length_ratio": 1.5, "max_length_extra": 16})


def capacity(memory: int = 1 << 28, window: int = 8_192, **settings: Any) -> Capacity:
    decoding = dataclasses.replace(CONFIG.decoding, **settings)
    return Capacity(CONFIG.model, decoding, memory, Platform(window=window))


@given(memory=st.integers(1 << 18, 1 << 45), beam_size=st.integers(1, 12))
def test_the_longest_source_fits_and_a_longer_one_does_not(memory: int, beam_size: int):
    device = capacity(memory, beam_size=beam_size)
    longest = device.longest_source
    for length in (longest, longest + 1):
        fits = 0 < length <= longest
        assert device.holds(length, limit_of(length, device.decoding)) == fits
    highest = device.highest_limit(20)
    assert device.holds(20, highest) == (highest > 0)
    assert not device.holds(20, highest + 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length_extra": 1_000_000}, "decoding.max_length_extra is 1000000: "),
        ({"max_length_extra": 1 << 31}, "decoding.max_length_extra is 2147483648: "),
        ({"max_length_ratio": 1e6}, "decoding.max_length_ratio is 1000000.0: "),
        ({"max_length_ratio": 1e300}, "decoding.max_length_ratio is 1e+300: "),
        ({"beam_size": 1_000_000}, "decoding.beam_size is 1000000: "),
        ({"beam_size": 1 << 40}, "decoding.beam_size is 1099511627776: "),
    ],
)
def test_a_setting_that_fits_no_sentence_is_refused(settings: Any, message: str):
    with pytest.raises(UserError) as caught:
        capacity(**settings).check()
    assert str(caught.value).startswith(message)
    ((name, value),) = settings.items()
    most = type(value)(re.findall(r"lower it to (\d+) or less", str(caught.value))[0])
    capacity(**{name: most}).check()
    with pytest.raises(UserError):
        capacity(**{name: most + 1}).check()


def test_row_counts_stay_within_int32():
    device = capacity(1 << 60, max_length_extra=1_000_000)
    rows = CONFIG.model.decoder_layers * (4 * 5 + 32)
    for length in (1_000, 100_000, 1_000_000):
        assert device.sentences(16, length) * length * rows < 1 << 31
    assert device.sentences(16, 64) == 8_192
    assert 0 < device.sentences(16, 1_000_000) < 20
    with pytest.raises(UserError, match=r"max_length_extra is 1000000000: .* lower it to 1"):
        capacity(1 << 60, max_length_extra=1_000_000_000).check()


def test_results_of_a_search_take_a_bounded_part_of_memory():
    device = capacity(1 << 26)
    assert device.sentences(16, 1_024) * 16 * 1_024 < 1 << 24
    assert device.sentences(16, 64) == 8_192


def test_a_model_that_does_not_fit_is_refused():
    with pytest.raises(
        UserError, match=r"does not fit into 0\.0 GiB of memory: use another device"
    ):
        capacity(1_000).check()


@given(limit=st.integers(1, 5_000), source=st.integers(1, 2_000))
def test_the_compiled_length_follows_the_limit(limit: int, source: int):
    platform = Platform()
    length = length_for(limit, room_for(source, platform), CONFIG.decoding, platform)
    assert limit <= length < max(17, 2 * limit)
    asked = [
        length_for(limit_of(n, CONFIG.decoding), 64, CONFIG.decoding, platform)
        for n in range(33, 65)
    ]
    assert set(asked) == {112}  # sources of one room share a program


def test_cpu_devices_share_the_memory_of_the_machine():
    devices = jax.local_devices()
    assert len(devices) > 1
    of_machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < sum(map(memory_of, devices)) <= of_machine


@pytest.mark.slow
@pytest.mark.parametrize(("source", "length"), [(1_024, 16), (16, 2_048)])
def test_the_memory_estimate_is_close_to_that_of_the_compiler(source: int, length: int):
    """For one sentence. Sizing lets a search fill half of a memory, so a factor of 2 is safe."""
    wide = {
        "encoder_heads": 4,
        "encoder_dim": 64,
        "encoder_ff_dim": 64,
        "decoder_dim": 64,
        "decoder_ff_dim": 64,
    }
    config = tiny_config(model=wide, decoding={"beam_size": 5})
    model, rule = Transformer(config.model, 50, 50), Fixed(2)
    weights = jax.eval_shape(lambda: unstack(model, init_params(model, jax.random.key(0))))
    of_weights = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(weights))
    settings = choose_settings(
        rule, config.model, config.decoding, 1, source, length, 1 << 40, Platform()
    )
    shapes = ((1, source), (1,), (1,), ())
    queue = Queue(*(jax.ShapeDtypeStruct(shape, jnp.int32) for shape in shapes))
    peak = _peak_bytes(engine.search.lower(model, weights, rule, queue, settings).compile())
    need = sum(need_of(config.model, 5, source, length))
    assert need / 2 < peak - of_weights < 1.5 * need
