# SPDX-License-Identifier: Apache-2.0
"""One search on several devices, each with its own queue; they exchange nothing."""

import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jax.stages import Compiled

from dat_jax.decoding import engine
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.cost import DecodeCost
from dat_jax.decoding.queue import Queue
from dat_jax.decoding.settings import SearchSettings
from dat_jax.decoding.trained import DEVICES, TrainedModel, mesh_of, rows_on
from dat_jax.decoding.unstacked import Weights, unstack
from dat_jax.decoding.work import Work
from dat_jax.exits.questions import Rule, as_arrays
from dat_jax.model.transformer import Transformer

# Compiled programs to keep. One takes 1,000 to 2,000 memory mappings on a CPU, and Linux allows a
# process 65,530: beyond, XLA crashes.
_PROGRAMS = 16
_WEIGHTS: WeakKeyDictionary[TrainedModel, Weights] = WeakKeyDictionary()
_EACH, _WHOLE = PartitionSpec(DEVICES), PartitionSpec()

Item = TypeVar("Item")


class Ran(NamedTuple):
    """The result of a search on all devices."""

    hypotheses: Hypotheses  # [devices, Q, ...] numpy arrays
    cost: DecodeCost


def deal(items: Sequence[Item], devices: int) -> list[list[Item]]:
    """Deals items, sorted longest first, back and forth, so that devices get similar lengths."""
    rounds = [items[first : first + devices] for first in range(0, len(items), devices)]
    hands: list[list[Item]] = [[] for _ in range(devices)]
    for number, dealt in enumerate(rounds):
        order = range(devices) if number % 2 == 0 else reversed(range(devices))
        for hand, item in zip(order, dealt, strict=False):
            hands[hand].append(item)
    return hands


def run(
    trained: TrainedModel,
    rule: Rule,
    queues: Sequence[Queue],
    settings: SearchSettings,
) -> Ran:
    """Searches each queue, of numpy arrays, on one of the model's devices."""
    mesh = mesh_of(trained.devices)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *queues)
    shared = jax.device_put(stacked, rows_on(trained.devices))
    weights = weights_of(trained).up_to(rule.deepest(trained.model.config.decoder_layers))
    arguments = (weights, as_arrays(rule), shared)
    started = time.monotonic()
    # A linen module hashes by its fields, which ty does not see.
    program = _compile(trained.model, settings, mesh, _Shapes.of(arguments))  # ty: ignore
    seconds_compiling = time.monotonic() - started
    hypotheses, work = jax.tree.map(np.asarray, program.run(*arguments))
    busiest = int(work.computed[:, :-1].sum(axis=1).max())
    cost = DecodeCost(
        work=jax.tree.map(lambda counts: counts.sum(axis=0, dtype=np.int64), work),
        busiest=busiest,
        in_work=settings.slots * len(queues),
        peak_bytes=program.peak_bytes,
        seconds=time.monotonic() - started - seconds_compiling,
        seconds_compiling=seconds_compiling,
    )
    return Ran(hypotheses, cost)


def weights_of(trained: TrainedModel) -> Weights:
    """Returns the model's parameters laid out for decoding, cached as long as the model lives."""
    if trained not in _WEIGHTS:
        _WEIGHTS[trained] = unstack(trained.model, trained.params)
    return _WEIGHTS[trained]


class _Program(NamedTuple):
    """A compiled search."""

    run: Compiled
    peak_bytes: int  # looked up once: the lookup takes longer than many searches


class _Shapes(NamedTuple):
    """The structure of a search's arguments, the key of its compiled program."""

    structure: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]

    @classmethod
    def of(cls, arguments: Any) -> "_Shapes":
        leaves, structure = jax.tree.flatten(arguments)
        return cls(structure, tuple(map(_shape_of, leaves)))


@functools.lru_cache(maxsize=_PROGRAMS)
def _compile(model: Transformer, settings: SearchSettings, mesh: Mesh, shapes: _Shapes) -> _Program:
    """Compiles a search for arguments of these shapes."""

    def on_each(weights: Weights, rule: Rule, queue: Queue) -> tuple[Hypotheses, Work]:
        own = (leaf[0] for leaf in queue)  # each device has one entry of the leading axis
        results = engine.search(model, weights, rule, Queue(*own), settings)
        return jax.tree.map(lambda leaf: leaf[None], results)

    # Each device's loops end when its own queue is empty.
    search = jax.shard_map(
        on_each,
        mesh=mesh,
        in_specs=(_WHOLE, _WHOLE, _EACH),
        out_specs=_EACH,
        check_vma=False,
    )
    lowered = jax.jit(search).lower(*jax.tree.unflatten(shapes.structure, shapes.leaves))
    compiled = lowered.compile()
    return _Program(compiled, _peak_bytes(compiled))


def _peak_bytes(compiled: Compiled) -> int:
    """Returns the memory that a program needs on a device, by its compiler; 0 if unknown."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return held - memory.alias_size_in_bytes + memory.temp_size_in_bytes


def _shape_of(leaf: jax.Array | np.ndarray) -> jax.ShapeDtypeStruct:
    """Returns an array's shape, with its sharding if it was placed explicitly."""
    sharding = leaf.sharding if isinstance(leaf, jax.Array) and leaf.committed else None
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
