# SPDX-License-Identifier: Apache-2.0
"""Compiled programs for GPU as XLA dumps them: what is launched, in the order of a stream.

A line is a launch. Launches below a command buffer are the nodes of one CUDA graph.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

_THUNK = re.compile(r"( *)\d+: (k\w+)")
_LABEL = re.compile(r"( *)(condition|body|true_branch|false_branch|branch_\d+):")


class Thunk(NamedTuple):
    """A launch, or what holds others."""

    kind: str
    parts: dict[str, list["Thunk"]]  # of a loop or a branch by their labels, else all under ""

    @property
    def is_copy(self) -> bool:
        """True if it only copies on the device."""
        return self.kind == "kCopy"


def parse(text: str) -> list[Thunk]:
    """Reads a `thunk_sequence_after_thunk_passes` dump."""
    top = Thunk("", {"": []})
    stack: list[tuple[int, list[Thunk], Thunk]] = [(-1, top.parts[""], top)]
    for line in text.splitlines():
        if label := _LABEL.match(line):
            indent = len(label[1])
            if label[2] == "condition":  # which is not indented
                indent = stack[-1][0] + 1
            while indent <= stack[-1][0]:
                stack.pop()
            owner = stack[-1][2]
            stack.append((indent, owner.parts.setdefault(label[2], []), owner))
        elif match := _THUNK.match(line):
            while len(match[1]) <= stack[-1][0]:
                stack.pop()
            thunk = Thunk(match[2], {})
            stack[-1][1].append(thunk)
            stack.append((len(match[1]), thunk.parts.setdefault("", []), thunk))
    return top.parts[""]


def last_loop(thunks: list[Thunk]) -> list[Thunk]:
    """The body of the last loop of the innermost ones, in which a program spends its time."""
    for thunk in reversed(thunks):
        if thunk.kind == "kWhile":
            return last_loop(thunk.parts["body"]) or thunk.parts["body"]
        if inner := last_loop([inner for part in thunk.parts.values() for inner in part]):
            return inner
    return []


def count(thunks: list[Thunk], runs: Callable[[int], bool]) -> dict[str, int]:
    """Counts the nodes of command buffers that run once, and the copies among them.

    Args:
        thunks: a loop's body.
        runs: says of each conditional, by its number from 0, whether it runs its work on all rows.
            Of numbered branches, by ascending row counts, that is the last, and the first is taken
            where it does not; of true and false, that with more nodes, and the other.
    """
    numbers = itertools.count()

    def nodes(thunks: list[Thunk]) -> Iterator[Thunk]:
        for thunk in thunks:
            if thunk.kind == "kCommandBuffer":
                yield from nodes(thunk.parts[""])
                continue
            yield thunk
            branches = [part for label, part in thunk.parts.items() if label]
            if branches:
                if "true_branch" in thunk.parts:
                    branches.sort(key=len)
                yield from nodes(branches[-1 if runs(next(numbers)) else 0])

    found = list(nodes(thunks))
    return {"nodes": len(found), "copies": sum(thunk.is_copy for thunk in found)}
