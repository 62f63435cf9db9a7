# SPDX-License-Identifier: Apache-2.0
"""Parses the text of compiled programs: loops, branches and the compiler's cost estimates.

The TPU compiler estimates the cycles of most instructions, but not of gathers and scatters.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_HEAD = re.compile(r"(ENTRY )?%([\w.-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%[\w.-]+ = (.+?) ([a-z][\w-]*)\((.*)$")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}


class Instruction(NamedTuple):
    """One instruction of a computation."""

    opcode: str
    shape: str
    scopes: frozenset[str]  # names of the JAX scopes in which it was traced
    cycles: int  # of one run; 0 without an estimate
    trips: int  # iterations of a loop if the compiler knows them, else 1
    is_custom: bool  # a gather, scatter or other kernel without an estimate
    body: str | None  # the computation of a loop
    branches: tuple[str, ...]  # the computations of a conditional

    @property
    def arrays(self) -> list[tuple[str, tuple[int, ...]]]:
        """The element type and dimensions of each result."""
        found = _ARRAY.findall(self.shape)
        return [(kind, tuple(map(int, filter(None, dims.split(","))))) for kind, dims in found]

    @property
    def bytes(self) -> int:
        """The bytes of all results."""
        return sum(size_of(kind, dims) for kind, dims in self.arrays)

    @property
    def is_collective(self) -> bool:
        """True if it starts an exchange between devices."""
        return self.opcode.removesuffix("-start") in _COLLECTIVES


class Program(NamedTuple):
    """The computations of a compiled program."""

    computations: dict[str, list[Instruction]]
    entry: str

    def all_below(self, name: str) -> Iterator[Instruction]:
        """Yields the instructions of a computation, its branches and its loops."""
        for instruction in self.computations[name]:
            yield instruction
            for inner in (*instruction.branches, *filter(None, [instruction.body])):
                yield from self.all_below(inner)

    def loop(self, scope: str) -> Instruction:
        """Returns the loop whose body holds the most instructions of a scope.

        Inner loops do not count: what never changes in a loop may have been moved to an outer one.
        """
        everything = (one for computation in self.computations.values() for one in computation)
        loops = [one for one in everything if one.body]
        return max(
            loops,
            key=lambda loop: sum(scope in one.scopes for one in self.computations[loop.body or ""]),
        )

    def cycles(self, name: str, optional: frozenset[str] = frozenset()) -> int:
        """Returns the estimated cycles of a computation with the costliest branch of each switch.

        A switch with a branch traced in an `optional` scope takes its cheapest branch instead.
        """
        total = 0
        for instruction in self.computations[name]:
            total += instruction.cycles
            if instruction.body:
                total += instruction.trips * self.cycles(instruction.body, optional)
            if branches := instruction.branches:
                inside = [one.scopes for branch in branches for one in self.all_below(branch)]
                choose = min if any(scopes & optional for scopes in inside) else max
                total += choose(self.cycles(branch, optional) for branch in branches)
        return total

    def cycles_of_branch(self, name: str, scope: str, number: int) -> int:
        """Returns the estimated cycles of a scope if its switches take one branch.

        Switches inside that branch take their costliest one.
        """
        return sum(
            one.cycles + (self.cycles(one.branches[number]) if one.branches else 0)
            for one in self.computations[name]
            if scope in one.scopes
        )


def size_of(kind: str, dims: tuple[int, ...]) -> int:
    """Returns the bytes of an array."""
    return _BYTES.get(kind, 4) * math.prod(dims)


def parse(text: str) -> Program:
    """Parses the text of `jax.stages.Compiled.as_text`."""
    computations, current, entry = dict[str, list[Instruction]](), None, ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = computations[head[2]] = []
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := _INSTRUCTION.match(line)):
            current.append(_instruction(*match.groups()))
    return Program(computations, entry)


def _instruction(shape: str, opcode: str, rest: str) -> Instruction:
    def value(pattern: str) -> str:
        match = re.search(pattern, rest)
        return match[1] if match else ""

    branches = re.findall(r"%([\w.-]+)", value(r"branch_computations=\{([^}]*)\}"))
    if pair := re.search(r"true_computation=%([\w.-]+), false_computation=%([\w.-]+)", rest):
        branches = [pair[2], pair[1]]
    return Instruction(
        opcode,
        shape,
        frozenset(value(r'op_name="([^"]*)"').split("/")),
        int(value(r'"estimated_cycles":"(\d+)"') or 0),
        int(value(r'"known_trip_count":\{"n":"(\d+)"') or 1),
        "kind=kCustom" in rest or opcode in ("gather", "scatter"),
        value(r"body=%([\w.-]+)") or None,
        tuple(branches),
    )
