# SPDX-License-Identifier: Apache-2.0
"""Fair timing on a machine that is never quite quiet, and lines of results, for all benchmarks.

Everything is run in turn, again and again, so that nothing has the quiet minutes to itself.
"""

import itertools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import jax
from tqdm import tqdm

from dat_jax.evaluation.provenance import describe_commit, hash_engine

Outcome = TypeVar("Outcome")
_VECTORS = ("avx512_vnni", "avx_vnni", "avx512f", "avx2")  # best first; one name may hide several


class Timed(NamedTuple, Generic[Outcome]):
    """The last outcome of a run, and the seconds of each repetition."""

    outcome: Outcome
    seconds: list[float]


def interleaved(
    runs: Sequence[Callable[[], Outcome]], repetitions: int, description: str
) -> list[Timed[Outcome]]:
    """Calls each of `runs` once untimed, which compiles, and then all of them in turn.

    A drift of the machine's speed is shared by all.
    """
    outcomes: list[Any] = [None] * len(runs)
    seconds: list[list[float]] = [[] for _ in runs]
    for repetition, index in tqdm(
        list(itertools.product(range(1 + repetitions), range(len(runs)))),
        desc=description,
        unit="run",
        dynamic_ncols=True,
        leave=False,
        disable=not sys.stderr.isatty(),
    ):
        started = time.perf_counter()
        outcomes[index] = runs[index]()
        if repetition:
            seconds[index].append(time.perf_counter() - started)
    return [Timed(*both) for both in zip(outcomes, seconds, strict=True)]


def rate(amount: float, seconds: list[float]) -> dict[str, Any]:
    """`amount` per second: the median over the repetitions, the slowest, the fastest, and each."""
    return {
        "tokens_per_second": round(amount / statistics.median(seconds), 1),
        "slowest": round(amount / max(seconds), 1),
        "fastest": round(amount / min(seconds), 1),
        "repetitions": len(seconds),
        "rates": [round(amount / one, 1) for one in seconds],
    }


def machine() -> dict[str, Any]:
    """The machine that a figure depends on in addition to the code, and the code itself."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}",
        "cpus": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "commit": describe_commit(),
        "engine_sha256": hash_engine(),
    }


def _processor() -> str:
    """The processor's name and its best vector instructions, where the system tells them."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            known = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError:
        known = {}
    facts = {key.strip(): value.split() for key, value in known.items()}
    name = " ".join(facts.get("model name", [platform.machine()]))
    best = next((vectors for vectors in _VECTORS if vectors in facts.get("flags", [])), "")
    return f"{name} {best}".strip()
