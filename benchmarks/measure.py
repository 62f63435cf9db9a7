# SPDX-License-Identifier: Apache-2.0
"""Fair timing on a machine that is never quite quiet: everything in turn, again and again."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from tqdm import tqdm

from dat_jax.report import describe_commit


def interleaved(
    runs: Mapping[str, Callable[[], Any]], repetitions: int, description: str
) -> dict[str, list[float]]:
    """Calls each of `runs` once untimed, which compiles, and then all of them in turn.

    Returns:
        The seconds of each repetition of each run. A drift of the machine's speed is shared by all.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    calls = [(name, False) for name in runs] + [(name, True) for name in runs] * repetitions
    for name, counts in tqdm(
        calls,
        desc=description,
        unit="run",
        dynamic_ncols=True,
        leave=False,
        disable=not sys.stderr.isatty(),
    ):
        started = time.perf_counter()
        runs[name]()
        if counts:
            seconds[name].append(time.perf_counter() - started)
    return seconds


def rate(amount: float, seconds: list[float]) -> dict[str, float]:
    """`amount` per second: the median over the repetitions, the slowest and the fastest."""
    return {
        "tokens_per_second": round(amount / statistics.median(seconds), 1),
        "slowest": round(amount / max(seconds), 1),
        "fastest": round(amount / min(seconds), 1),
        "repetitions": len(seconds),
    }


def machine() -> dict[str, Any]:
    """What a figure depends on beside the code, and the code's commit."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}",
        "cpus": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "commit": describe_commit(),
    }


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
