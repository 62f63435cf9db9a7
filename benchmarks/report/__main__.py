# SPDX-License-Identifier: Apache-2.0
"""Makes all tables and figures of README.md and docs/ from the lines in results/ alone.

    python -m benchmarks.report
    python -m benchmarks.report --table="results/NAME.jsonl by_exit valid"
    python -m benchmarks.report --figure="quality results/NAME.jsonl" --output=FILE.svg

The first replaces the text between a page's marks `<!-- table: SOURCE -->` and `<!-- end -->`, and
draws the figure after each mark `<!-- figure: SOURCE -->`. The others print one table or draw one
figure. The SOURCE of a table is a file of results, and for `benchmarks.reproduce` also a view and
its argument: by_exit, differences or against_cuts and a split, or against_time and a batch size.
For `benchmarks.decode` names of tables may follow, for other files numbers of lines. The SOURCE of
a figure is its kind (quality, ablation, positions, scores or speed) and files.

A checksum in each line identifies its engine (`dat_jax/decoding`). A warning names each file with
lines of another engine than the present one, or of an unknown engine.
"""

import sys
from collections.abc import Sequence

from absl import flags

from benchmarks.report.pages import draw, pages, renew, table, warnings
from dat_jax.cli.command_line import run
from dat_jax.errors import UserError
from dat_jax.storage.paths import as_path


def main(argv: Sequence[str]) -> int:
    """Reports as the command line says; returns the exit status."""
    options = flags.FlagValues()
    flags.DEFINE_string("table", None, "Print this table.", options)
    flags.DEFINE_string("figure", None, "Draw this figure.", options)
    flags.DEFINE_string("output", None, "The file of the figure.", options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Prints a table, draws a figure, or renews all pages; warns about other engines."""
    if (options.figure is None) != (options.output is None):
        raise UserError(
            f"--figure is {options.figure!r} and --output is {options.output!r}: give both or "
            "neither, as --figure='quality results/NAME.jsonl' --output=FILE.svg"
        )
    sources = [source for source in (options.table, options.figure) if source is not None]
    if options.table is not None:
        print(table(options.table))
    if options.figure is not None:
        draw(options.figure, as_path(options.output))
    if not sources:
        sources = [source for page in pages() for source in renew(page)]
    for warning in warnings(sources):
        print(f"warning: {warning}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
