# SPDX-License-Identifier: Apache-2.0
"""Fair timing on a machine whose speed drifts: all runs take turns, several times."""

import itertools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from tqdm import tqdm

from dat_jax.evaluation.provenance import describe_commit, hash_engine

Outcome = TypeVar("Outcome")
_VECTORS = ("avx512_vnni", "avx_vnni", "avx512f", "avx2")  # best first; one name may hide several


def interleaved(
    runs: Sequence[Callable[[], Outcome]], repetitions: int, description: str
) -> list[tuple[Outcome, list[float]]]:
    """Calls each of `runs` once untimed, which compiles, and then all of them in turn.

    Returns the last outcome of each run, and the seconds of its repetitions.
    """
    outcomes: list[Any] = [None] * len(runs)
    seconds: list[list[float]] = [[] for _ in runs]
    turns = list(itertools.product(range(1 + repetitions), range(len(runs))))
    hidden = not sys.stderr.isatty()
    progress = tqdm(turns, description, unit="run", dynamic_ncols=True, leave=False, disable=hidden)
    for repetition, index in progress:
        started = time.perf_counter()
        outcomes[index] = runs[index]()
        if repetition:
            seconds[index].append(time.perf_counter() - started)
    return list(zip(outcomes, seconds, strict=True))


def rate(amount: float, seconds: Sequence[float]) -> dict[str, Any]:
    """Returns `amount` per second: the median, slowest, fastest and every repetition."""
    return {
        "tokens_per_second": round(amount / statistics.median(seconds), 1),
        "slowest": round(amount / max(seconds), 1),
        "fastest": round(amount / min(seconds), 1),
        "repetitions": len(seconds),
        "rates": [round(amount / one, 1) for one in seconds],
    }


def machine() -> dict[str, Any]:
    """Returns the hardware and the versions that a measurement depends on."""
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
    """Returns the processor's name and its best vector instructions, if the system names them."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            known = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError:
        known = {}
    facts = {key.strip(): value.split() for key, value in known.items()}
    name = " ".join(facts.get("model name", [platform.machine()]))
    best = next((vectors for vectors in _VECTORS if vectors in facts.get("flags", [])), "")
    return f"{name} {best}".strip()
