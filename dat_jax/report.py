# SPDX-License-Identifier: Apache-2.0
"""Summaries of decoding runs as a table that reads well on a terminal and in Markdown."""

from collections.abc import Sequence
from typing import Any

_COLUMNS = {
    "policy": ("policy", "{}"),
    "BLEU": ("bleu", "{:.1f}"),
    "chrF": ("chrf", "{:.1f}"),
    "average exit": ("average_exit", "{:.2f}"),
    "MFLOPs/token": ("flops_per_token", "{:.2f}"),
    "layers run/token": ("layers_executed_per_token", "{:.1f}"),
    "tokens/s": ("tokens_per_second", "{:,.0f}"),
}


def format_table(summaries: Sequence[dict[str, Any]]) -> str:
    """One row for each of the dictionaries that `dat_jax.evaluation.summarise` returns."""
    rows = [list(_COLUMNS)]
    for summary in summaries:
        scaled = summary | {"flops_per_token": summary["flops_per_token"] / 1e6}
        rows.append([form.format(scaled[key]) for key, form in _COLUMNS.values()])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| "
        + " | ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    rule = "|" + "|".join(
        "-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths)
    )
    return "\n".join([lines[0], rule + "|", *lines[1:]])
