# SPDX-License-Identifier: Apache-2.0
"""Parses XLA's dump of a program compiled for GPU: its launches, in the order of a stream.

Each line is a launch. Launches below a command buffer are the nodes of one CUDA graph.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

_THUNK = re.compile(r"( *)\d+: (k\w+)")
_LABEL = re.compile(r"( *)(condition|body|true_branch|false_branch|branch_\d+):")


class Thunk(NamedTuple):
    """A launch, or a container of launches."""

    kind: str
    parts: dict[str, list["Thunk"]]  # by label in a loop or conditional, else all under ""


def parse(text: str) -> list[Thunk]:
    """Parses a `thunk_sequence_after_thunk_passes` dump."""
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
    """Returns the body of the last innermost loop, where a program spends its time."""
    for thunk in reversed(thunks):
        if thunk.kind == "kWhile":
            return last_loop(thunk.parts["body"]) or thunk.parts["body"]
        if inner := last_loop([inner for part in thunk.parts.values() for inner in part]):
            return inner
    return []


def count(thunks: list[Thunk], runs: Callable[[int], bool]) -> dict[str, int]:
    """Counts the nodes of command buffers that run in one iteration, and the copies among them.

    Args:
        thunks: the body of a loop.
        runs: takes the number of a conditional, from 0, and returns whether it does its work on
            all rows. That is the last of numbered branches, which ascend in rows, or the longer of
            `true` and `false`; otherwise the first or the shorter one is taken.
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
    return {"nodes": len(found), "copies": sum(thunk.kind == "kCopy" for thunk in found)}
