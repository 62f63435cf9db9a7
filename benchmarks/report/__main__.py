# SPDX-License-Identifier: Apache-2.0
"""All tables and figures of README.md and docs/, made of the lines in results/ and nothing else.

    python -m benchmarks.report
    python -m benchmarks.report --table="results/NAME.jsonl by_exit valid"
    python -m benchmarks.report --figure="quality results/NAME.jsonl" --output=FILE.svg

The first makes anew what stands between a page's marks, `<!-- table: SOURCE -->` and
`<!-- end -->`, and draws the figures that its marks `<!-- figure: SOURCE -->` are followed by. The
others print one table or draw one figure. A table's SOURCE is a file of results and, of a suite of
`benchmarks.reproduce`, a view and what it is of: by_exit, differences or against_cuts and a split,
against_time and a batch size; of `benchmarks.decode`, its table; of other files, numbers of lines
if not all. A figure's is its kind, quality, ablation, positions, scores or speed, and files.

Lines say by a checksum with which engine (`dat_jax/decoding`) they were made; a warning names each
file that has lines of another engine than the one that is here, or lines that do not say.
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
    """Prints, draws, or makes all pages anew."""
    if (options.figure is None) != (options.output is None):
        raise UserError(
            f"--figure is {options.figure!r} and --output is {options.output!r}: give both or "
            "neither, as --figure='quality results/NAME.jsonl' --output=FILE.svg"
        )
    asked = [source for source in (options.table, options.figure) if source is not None]
    if options.table is not None:
        print(table(options.table))
    if options.figure is not None:
        draw(options.figure, as_path(options.output))
    if not asked:
        for page in pages():
            asked += renew(page)
    for warning in warnings(asked):
        print(f"warning: {warning}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
