# SPDX-License-Identifier: Apache-2.0
"""Lines of compiled programs: what the pieces of a search and a training step cost."""

import dataclasses
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
from dat_jax.evaluation.tables import markdown_table
from dat_jax.exits.questions import Rule
from dat_jax.exits.thresholds import Confidence

_SOURCE, _LENGTH = 32, 64
_ROWS = {"tpu": 256, "cuda": 64}
_AVERAGE_EXIT = 1.75
_SHORTLIST = 16
_LARGE = 1 << 20  # bytes from which an array that a loop carries counts as a store


def lines_of(target: Target, programs: Sequence[str]) -> Iterator[Line]:
    """Yields the lines of these programs, each as soon as it is known."""
    if "search" in programs:
        yield from lines_of_search(target, make_config(LARGE, "bfloat16"))
    if "confidence" in programs:
        yield from lines_of_confidence(target, make_config(LARGE, "bfloat16"))
    if "train" in programs:
        devices = 4 if target.platform == "tpu" else 1
        yield line_of_training(target, "iwslt14_de_en", config_of(iwslt14_de_en), devices)
        if target.topology == "v5e:2x2":
            wmt = config_of(wmt14_en_fr)
            yield line_of_training(target, "wmt14_en_fr", wmt, 16, "v5e:4x4")


def lines_of_search(target: Target, config: Config) -> Iterator[Line]:
    """Yields a line for each piece of a search with random exits, and one for the program."""
    depths = range(1, config.model.decoder_layers + 1)
    found = _compile_search(target, config, drawn_exits(_AVERAGE_EXIT, len(depths)))
    if target.platform == "tpu":
        pieces = _pieces_in_cycles(found.program, depths, found.sizes)
    else:
        pieces = _pieces_in_nodes(found.compiled, depths)
    yield from found.lines("search", pieces)


def lines_of_confidence(target: Target, config: Config) -> Iterator[Line]:
    """Yields what a depth costs with its classifier, whole and with a shortlist."""
    depths = range(1, config.model.decoder_layers + 1)
    for shortlist in (0, _SHORTLIST):
        decoding = dataclasses.replace(config.decoding, shortlist=shortlist)
        own = dataclasses.replace(config, decoding=decoding)
        found = _compile_search(target, own, Confidence((0.5,) * (len(depths) - 1)))
        if target.platform == "tpu":
            pieces = _classified_in_cycles(found.program, depths, found.sizes)
        else:
            pieces = _pieces_in_nodes(found.compiled, depths)
        name = f"confidence, shortlist {shortlist}" if shortlist else "confidence"
        yield from found.lines(name, pieces)


class _Search(NamedTuple):
    """A compiled search."""

    compiled: Compiled
    program: Program
    labels: Line

    @property
    def sizes(self) -> Sequence[int]:
        return self.labels["sizes"]

    def lines(self, name: str, pieces: Iterator[Line]) -> Iterator[Line]:
        """Yields the lines of these pieces, and one for the whole program."""
        whole = {"piece": "program"} | _memory(self.compiled) | _flaws(self.program)
        yield from ({"program": name} | line | self.labels for line in (*pieces, whole))


def _compile_search(target: Target, config: Config, rule: Rule) -> _Search:
    """Compiles a greedy search of all rows at once."""
    lowered, settings = search(
        config,
        rule,
        make_mesh(target, 1),
        rows=_ROWS[target.platform],
        source_length=_SOURCE,
        length=_LENGTH,
    )
    compiled = compile_for(target, lowered)
    labels = {
        "in_work": settings.slots,
        "sizes": settings.sizes,
        "source_length": _SOURCE,
        "length": _LENGTH,
        "beam_size": settings.beam_size,
        "projected": settings.projected,
        "dtype": config.model.dtype,
    }
    return _Search(compiled, hlo.parse(compiled.text), labels)


def _classified_in_cycles(program: Program, depths: range, sizes: Sequence[int]) -> Iterator[Line]:
    """Yields kilocycles of a block with its classifier, on these numbers of rows: of block 1, and
    the median of the blocks above."""
    body = program.loop("step").body or ""
    for number, size in enumerate(sizes, start=1):
        first, *others = (
            program.cycles_of_branch(body, f"block_{depth}", number) / 1e3 for depth in depths
        )
        yield {"piece": "block 1", "rows": size, "kilocycles": round(first, 1)}
        above = statistics.median(others)
        yield {"piece": "block above", "rows": size, "kilocycles": round(above, 1)}


def _pieces_in_cycles(program: Program, depths: range, sizes: Sequence[int]) -> Iterator[Line]:
    """Yields kilocycles, estimated by the TPU compiler.

    They are of blocks and classifiers by the number of rows, and of a step: with all rows at each
    depth, and at an average exit.
    """
    body, every = program.loop("step").body or "", sizes[-1]

    def kilocycles(scope: str, size: int) -> float:
        """Returns the cost of a stage on this many rows; branch 0 runs nothing."""
        return program.cycles_of_branch(body, scope, 1 + sizes.index(size)) / 1e3

    blocks = {
        size: statistics.median(kilocycles(f"block_{depth}", size) for depth in depths)
        for size in sizes
    }
    for size in sizes:
        yield {"piece": "block", "rows": size, "kilocycles": round(blocks[size], 1)}
    classifier = kilocycles("classifier", every)
    yield {"piece": "classifier", "rows": every, "kilocycles": round(classifier, 1)}
    stages = frozenset({*(f"block_{depth}" for depth in depths), "classifier"})
    rest = program.cycles(body, stages) / 1e3
    yield {"piece": "rest of a step", "kilocycles": round(rest, 1)}
    for depth in depths:
        step = rest + depth * blocks[every] + classifier
        yield {"piece": "token", "average_exit": depth, "kilocycles": round(step, 1)}
    shares = 1 - np.asarray([0.0, *drawn_exits(_AVERAGE_EXIT, len(depths)).cumulative])
    needed = [min(s for s in sizes if s >= math.ceil(share * every)) for share in shares]
    step = rest + sum(blocks[size] for size in needed) + classifier
    rows = {"average_exit": _AVERAGE_EXIT, "rows_by_depth": needed}
    yield {"piece": "token"} | rows | {"kilocycles": round(step, 1)}


def _pieces_in_nodes(compiled: Compiled, depths: range) -> Iterator[Line]:
    """Yields the CUDA graph nodes that a step launches, and the copies among them.

    All rows run the blocks up to each depth, and the classifier.
    """
    body = thunks.last_loop(thunks.parse(compiled.thunks))
    graphs = {"command_buffers": sum(thunk.kind == "kCommandBuffer" for thunk in body)}
    for depth in depths:
        skipped = range(depth, len(depths))  # the classifier follows the blocks
        counted = thunks.count(body, lambda number, skipped=skipped: number not in skipped)
        yield {"piece": "token", "average_exit": depth} | counted | graphs


def _flaws(program: Program) -> Line:
    """Counts what the inner loop of a search should not do, and what has no estimate."""
    loop = program.loop("step")
    inside = list(program.all_below(loop.body or ""))
    stores = {dims for kind, dims in loop.arrays if hlo.size_of(kind, dims) >= _LARGE}
    copies = [one for one in inside if one.opcode == "copy" and one.arrays[0][1] in stores]
    return {
        "serial_loops": sum(one.body is not None for one in inside),
        "store_copies": len(copies),
        "unestimated": sum(one.is_custom for one in inside),
    }


def line_of_training(
    target: Target, name: str, config: Config, devices: int, topology: str = ""
) -> Line:
    """Returns the line of the training step of a config on several devices."""
    compiled = compile_for(target, training_step(config, make_mesh(target, devices, topology)))
    program = hlo.parse(compiled.text)
    everything = list(program.all_below(program.entry))
    loops = [one.body for one in everything if one.body]
    inside = [inner for body in loops for inner in program.all_below(body)]
    collectives = [one for one in everything if one.is_collective]
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
        "collectives_in_loops": sum(one.is_collective for one in inside),
        "collective_bytes": sum(one.bytes for one in collectives),
    }
    if target.platform == "tpu":
        line["kilocycles"] = round(program.cycles(program.entry) / 1e3)
    return line | _memory(compiled)


def _memory(compiled: Compiled) -> Line:
    """Returns the bytes that a program takes on a device."""
    memory = compiled.memory
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
    }


def format_table(lines: Sequence[Line]) -> str:
    """Returns a table of kilocycles or nodes: a row per piece, a column per target and commit."""
    columns = list(dict.fromkeys((line["target"], line["commit"]) for line in lines))
    values: dict[tuple[str, ...], dict[tuple[str, str], str]] = {}
    for line in lines:
        value = line.get("kilocycles", line.get("nodes"))
        if value is not None:
            labels = ("program", "piece", "rows", "average_exit")
            row = tuple(str(line.get(label, "")) for label in labels)
            values.setdefault(row, {})[line["target"], line["commit"]] = f"{value:,.0f}"
    heads = [f"{target}, {commit.partition('-')[0][:7]}" for target, commit in columns]
    rows = [["program", "piece", "rows", "exit", *heads]]
    rows += [[*row, *(cells.get(x, "") for x in columns)] for row, cells in values.items()]
    return markdown_table(rows)
