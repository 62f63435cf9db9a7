# SPDX-License-Identifier: Apache-2.0
"""Draws results: `python -m benchmarks.plot results/FILE.jsonl results/FILE.svg`.

BLEU against average exit, and against FLOPs per token, which count copies, exit predictors and
classifiers too. Needs the extra `plots`.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

_COSTS = {
    "average exit": lambda summary: summary["average_exit"],
    "MFLOPs per token (decoder)": lambda summary: summary["flops_per_token"] / 1e6,
}
_STYLES = {
    "fixed": ("fixed exit", "o-"),
    "uniform": ("uniform at random", "x"),
    "sequence_multinomial": ("sequence multinomial", "v-"),
    "token_multinomial": ("token multinomial", "^-"),
    "token_geometric": ("token geometric", "s-"),
    "confidence": ("confidence", "D-"),
}


def draw(summaries: list[dict[str, Any]], path: Path) -> None:
    """Draws one line for each kind of policy, a point for each summary."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "dat_jax"  # the same data draw the same file
    series = defaultdict(list)
    for summary in summaries:
        series[summary["policy"].partition(":")[0]].append(summary)
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, (label, cost) in zip(axes, _COSTS.items(), strict=True):
        for kind, (name, style) in _STYLES.items():
            points = sorted(series.get(kind, []), key=cost)
            if points:
                costs = [cost(point) for point in points]
                axis.plot(costs, [point["bleu"] for point in points], style, label=name, ms=5)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"BLEU, beam {summaries[0]['beam_size']}")
    axes[0].legend()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text("utf-8").splitlines()
    draw([json.loads(line) for line in lines], Path(sys.argv[2]))
