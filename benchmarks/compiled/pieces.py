# SPDX-License-Identifier: Apache-2.0
"""Lines of compiled programs: what each piece of a search and of a training step costs."""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.compiled import hlo, thunks
from benchmarks.compiled.hlo import Program
from benchmarks.compiled.programs import search, training_step
from benchmarks.compiled.targets import Compiled, Target, compile_for, make_mesh
from benchmarks.results import Line
from benchmarks.task import LARGE, config_of, drawn_exits, make_config
from configs import iwslt14_de_en, wmt14_en_fr
from dat_jax.config import Config

_SOURCE, _LENGTH = 32, 64
_ROWS = {"tpu": 256, "cuda": 64}
_AVERAGE_EXIT = 1.75
_LARGE = 1 << 20  # bytes of an array that a loop carries, from which on it is a store


class _Search(NamedTuple):
    """A compiled search, to be looked at."""

    num_layers: int
    compiled: Compiled
    program: Program

    @property
    def known(self) -> frozenset[str]:
        """All scopes under which stages are traced."""
        return frozenset({*map(self.block, range(1, self.num_layers + 1)), "classifier"})

    @staticmethod
    def block(depth: int) -> str:
        """The scope of a block."""
        return f"block_{depth}"

    def kilocycles(self, *scopes: str) -> float:
        """A step, or a tick, in which stages of these scopes run."""
        body = self.program.loop("step").body or ""
        return self.program.cycles(body, frozenset(scopes), self.known) / 1e3


def lines_of_search(target: Target, config: Config) -> Iterator[Line]:
    """Yields a line for each piece of a search, and one for the whole program."""
    rows, num_layers = _ROWS[target.platform], config.model.decoder_layers
    lowered, settings = search(
        config,
        drawn_exits(_AVERAGE_EXIT, num_layers),
        make_mesh(target, 1),
        rows=rows,
        source_length=_SOURCE,
        length=_LENGTH,
    )
    compiled = compile_for(target, lowered)
    made = _Search(num_layers, compiled, hlo.parse(compiled.text))
    labels = {
        "in_work": settings.slots,
        "source_length": _SOURCE,
        "length": _LENGTH,
        "beam_size": settings.beam_size,
        "projected": settings.projected,
        "dtype": config.model.dtype,
    }
    tpu = target.platform == "tpu"
    pieces = _pieces_in_cycles(made, settings.sizes) if tpu else _pieces_in_nodes(made)
    for line in [*pieces, {"piece": "program"} | _of_program(made)]:
        yield {"program": "search"} | line | labels


def _pieces_in_cycles(made: _Search, sizes: tuple[int, ...]) -> Iterator[Line]:
    """Kilocycles, as TPU's compiler estimates them: of blocks and classifiers by the rows that they
    run, of a token at each depth, and of one at an average exit."""
    body = made.program.loop("step").body or ""
    every = sizes[-1]

    def of_branch(scope: str, size: int) -> float:
        """Of a switch over row counts the branch for this one; branch 0 runs nothing."""
        return made.program.cycles_of_branch(body, scope, 1 + sizes.index(size)) / 1e3

    depths = range(1, made.num_layers + 1)
    blocks = {
        size: statistics.median(of_branch(made.block(n), size) for n in depths) for size in sizes
    }
    for size in sizes:
        yield {"piece": "block", "rows": size, "kilocycles": round(blocks[size], 1)}
    classifier = of_branch("classifier", every)
    yield {"piece": "classifier", "rows": every, "kilocycles": round(classifier, 1)}
    rest = made.kilocycles()
    yield {"piece": "rest of a step", "kilocycles": round(rest, 1)}
    for depth in depths:
        step = rest + depth * blocks[every] + classifier
        yield {"piece": "token", "average_exit": depth, "kilocycles": round(step, 1)}
    drawn = drawn_exits(_AVERAGE_EXIT, made.num_layers)
    shares = 1 - np.asarray([0.0, *drawn.cumulative])
    needed = [min(s for s in sizes if s >= math.ceil(share * every)) for share in shares]
    step = rest + sum(blocks[size] for size in needed) + classifier
    yield {
        "piece": "token",
        "average_exit": _AVERAGE_EXIT,
        "rows_by_depth": needed,
        "kilocycles": round(step, 1),
    }


def _pieces_in_nodes(made: _Search) -> Iterator[Line]:
    """Nodes of the CUDA graphs that a step launches, and the copies among them, by the deepest
    block that runs, each on all rows."""
    body = thunks.last_loop(thunks.parse(made.compiled.thunks))
    graphs = {"command_buffers": sum(thunk.kind == "kCommandBuffer" for thunk in body)}
    for depth in range(1, made.num_layers + 1):
        unreached = range(depth, made.num_layers)  # after the blocks comes the classifier
        counted = thunks.count(body, lambda number, without=unreached: number not in without)
        yield {"piece": "token", "average_exit": depth} | counted | graphs


def _of_program(made: _Search) -> Line:
    """Figures of a whole search: memory, and what its inner loop should not do."""
    loop = made.program.loop("step")
    inside = list(made.program.all_below(loop.body or ""))
    stores = {dims for kind, dims in loop.arrays if hlo.size_of(kind, dims) >= _LARGE}
    copies = [one for one in inside if one.opcode == "copy" and one.arrays[0][1] in stores]
    return _memory(made.compiled) | {
        "serial_loops": sum(one.body is not None for one in inside),
        "store_copies": len(copies),
        "unestimated": sum(one.is_custom for one in inside),
    }


def line_of_training(
    target: Target, name: str, config: Config, devices: int, topology: str
) -> Line:
    """A line for the training step of a config on several devices."""
    lowered = training_step(config, make_mesh(target, devices, topology))
    compiled = compile_for(target, lowered)
    program = hlo.parse(compiled.text)
    everything = list(program.all_below(program.entry))
    loops = [one for one in everything if one.body]
    inside = [inner for loop in loops for inner in program.all_below(loop.body or "")]
    collectives = [one for one in everything if one.collective]
    line = {
        "program": "train",
        "piece": name,
        "devices": devices,
        "batch_tokens": config.training.batch_tokens,
        "microbatches": config.training.microbatches,
        "sharding": config.training.sharding,
        "rematerialisation": config.model.rematerialisation,
        "dtype": config.model.dtype,
        "collectives": len(collectives),
        "collectives_in_loops": sum(one.collective is not None for one in inside),
        "collective_bytes": sum(one.bytes for one in collectives),
    }
    if target.platform == "tpu":
        cycles = program.cycles(program.entry, frozenset(), frozenset())
        line["kilocycles"] = round(cycles / 1e3)
    return line | _memory(compiled)


def _memory(compiled: Compiled) -> Line:
    """Bytes on a device."""
    memory = compiled.memory
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
    }


def lines_of(target: Target, programs: Sequence[str]) -> Iterator[Line]:
    """Yields the lines of these programs, each as soon as it is known."""
    config = make_config(LARGE, "bfloat16")
    if "search" in programs:
        yield from lines_of_search(target, config)
    if "train" in programs:
        iwslt = config_of(iwslt14_de_en)
        devices = 4 if target.platform == "tpu" else 1
        yield line_of_training(target, "iwslt14_de_en", iwslt, devices, "")
        if target.topology == "v5e:2x2":
            yield line_of_training(target, "wmt14_en_fr", config_of(wmt14_en_fr), 16, "v5e:4x4")
