# SPDX-License-Identifier: Apache-2.0
"""The table of lines of `benchmarks.compiled`."""

from collections.abc import Sequence

from benchmarks.results import Line
from dat_jax.evaluation.tables import markdown_table


def format_table(lines: Sequence[Line]) -> str:
    """A row for each piece, and a column for each target and commit: kilocycles, or nodes."""
    columns = list(dict.fromkeys((line["target"], line["commit"]) for line in lines))
    values: dict[tuple[str, str, str], dict[tuple[str, str], str]] = {}
    for line in lines:
        value = line.get("kilocycles", line.get("nodes"))
        if value is not None:
            row = (line["program"], line["piece"], str(line.get("average_exit", "")))
            values.setdefault(row, {})[line["target"], line["commit"]] = f"{value:,.0f}"
    heads = [f"{target}, {commit.partition('-')[0][:7]}" for target, commit in columns]
    rows = [["program", "piece", "exit", *heads]]
    rows += [[*row, *(cells.get(x, "") for x in columns)] for row, cells in values.items()]
    return markdown_table(rows)
