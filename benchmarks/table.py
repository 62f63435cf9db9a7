# SPDX-License-Identifier: Apache-2.0
"""Prints lines of results as a Markdown table: `python -m benchmarks.table results/FILE.jsonl`."""

import json
import sys
from pathlib import Path

from dat_jax.evaluation.tables import format_table


def read_table(path: Path) -> str:
    """The table of a file with one summary of `dat_jax.evaluation.tally.Tally` a line."""
    return format_table([json.loads(line) for line in path.read_text("utf-8").splitlines()])


if __name__ == "__main__":
    print(read_table(Path(sys.argv[1])))
