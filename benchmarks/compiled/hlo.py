# SPDX-License-Identifier: Apache-2.0
"""Compiled programs as XLA prints them: loops, branches, what the compiler says of instructions.

TPU's compiler writes an estimate of cycles beside most instructions, gathers and scatters aside.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_HEAD = re.compile(r"(ENTRY )?%([\w.-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.-]+) = (.*)$")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}


class Instruction(NamedTuple):
    """One instruction of a computation."""

    opcode: str
    shape: str
    scopes: frozenset[str]  # the names under which JAX traced it
    cycles: int  # of one run; 0 if the compiler makes no estimate
    trips: int  # of a loop whose length is known; 1 of all else
    is_custom: bool  # a gather, a scatter or another of which it makes none
    body: str | None  # the computation of a loop
    branches: tuple[str, ...]

    @property
    def arrays(self) -> list[tuple[str, tuple[int, ...]]]:
        """Element types and dimensions of all arrays that it makes."""
        found = _ARRAY.findall(self.shape)
        return [(kind, tuple(map(int, filter(None, dims.split(","))))) for kind, dims in found]

    @property
    def bytes(self) -> int:
        """Bytes of all arrays that it makes."""
        return sum(size_of(kind, dims) for kind, dims in self.arrays)

    @property
    def collective(self) -> str | None:
        """The kind of exchange between devices that it begins, if any."""
        kinds = (kind for kind in _COLLECTIVES if self.opcode in (kind, f"{kind}-start"))
        return next(kinds, None)


class Program(NamedTuple):
    """The computations of a compiled program."""

    computations: dict[str, list[Instruction]]
    entry: str

    def all_below(self, name: str) -> Iterator[Instruction]:
        """Yields the instructions of a computation, of its branches and of its loops."""
        for instruction in self.computations[name]:
            yield instruction
            for inner in (*instruction.branches, *filter(None, [instruction.body])):
                yield from self.all_below(inner)

    def loop(self, scope: str) -> Instruction:
        """The loop in whose body, and in no loop in between, most was traced under `scope`: what
        never changes in it may have been moved out, into a loop around it."""
        loops = [
            instruction
            for computation in self.computations.values()
            for instruction in computation
            if instruction.body
        ]
        return max(
            loops,
            key=lambda loop: sum(scope in one.scopes for one in self.computations[loop.body or ""]),
        )

    def cycles(self, name: str, scopes: frozenset[str], known: frozenset[str]) -> int:
        """Estimated cycles of a computation in which, of all branches, those are taken that were
        traced under one of `scopes`.

        Where no branch was, the cheapest is taken if some were under one of the `known` scopes, and
        the dearest if none.
        """
        total = 0
        for instruction in self.computations[name]:
            total += instruction.cycles
            if instruction.body:
                total += instruction.trips * self.cycles(instruction.body, scopes, known)
            if instruction.branches:
                total += self._branch(instruction, scopes, known)
        return total

    def cycles_of_branch(self, name: str, scope: str, number: int) -> int:
        """Estimated cycles of one branch of the switches that were traced under `scope`, and of all
        else under it; of the branches inside, the dearest."""
        anything = frozenset[str]()
        return sum(
            one.cycles
            + (self.cycles(one.branches[number], anything, anything) if one.branches else 0)
            for one in self.computations[name]
            if scope in one.scopes
        )

    def _branch(
        self, instruction: Instruction, scopes: frozenset[str], known: frozenset[str]
    ) -> int:
        costs = {branch: self.cycles(branch, scopes, known) for branch in instruction.branches}
        taken = [costs[branch] for branch in costs if self._scopes(branch) & scopes]
        if taken:
            return max(taken)
        optional = any(self._scopes(branch) & known for branch in costs)
        return min(costs.values()) if optional else max(costs.values())

    def _scopes(self, name: str) -> frozenset[str]:
        return frozenset().union(*(inner.scopes for inner in self.all_below(name)))


def size_of(kind: str, dims: tuple[int, ...]) -> int:
    """Bytes of an array."""
    return _BYTES.get(kind, 4) * math.prod(dims)


def parse(text: str) -> Program:
    """Reads what `jax.stages.Compiled.as_text` returns."""
    computations, current, entry = dict[str, list[Instruction]](), None, ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = computations[head[2]] = []
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := _INSTRUCTION.match(line)):
            current.append(_instruction(match[2]))
    return Program(computations, entry)


def _instruction(text: str) -> Instruction:
    shape, rest = _split_shape(text)
    opcode = rest.partition("(")[0]
    called = re.search(r"branch_computations=\{([^}]*)\}", rest)
    branches = re.findall(r"%([\w.-]+)", called[1]) if called else []
    if pair := re.search(r"true_computation=%([\w.-]+), false_computation=%([\w.-]+)", rest):
        branches = [pair[2], pair[1]]
    names = _value(r'op_name="([^"]*)"', rest) or ""
    return Instruction(
        opcode,
        shape,
        frozenset(names.split("/")),
        int(_value(r'"estimated_cycles":"(\d+)"', rest) or 0),
        int(_value(r'"known_trip_count":\{"n":"(\d+)"', rest) or 1),
        "kind=kCustom" in rest or opcode in ("gather", "scatter"),
        _value(r"body=%([\w.-]+)", rest),
        tuple(branches),
    )


def _split_shape(text: str) -> tuple[str, str]:
    """The shape of what an instruction makes, which may be a tuple, and the rest of it."""
    if not text.startswith("("):
        shape, _, rest = text.partition(" ")
        return shape, rest
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[: index + 1], text[index + 2 :]
    return text, ""


def _value(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None
