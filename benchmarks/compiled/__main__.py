# SPDX-License-Identifier: Apache-2.0
"""Compiles our programs for TPUs and GPUs that this machine lacks, and says what they cost.

    python -m benchmarks.compiled --target=tpu:v5e --output=results/compiled_v5e.jsonl

Writes a line for each piece of the search and of the training step: on TPU the cycles that the
compiler estimates, on GPU the launches. Nothing is timed, and the estimate leaves out gathers and
scatters, which are counted. Needs `jax[tpu]`, or for a GPU the packages that the message names.
"""

import importlib.metadata
import sys
from collections.abc import Sequence

import jax
from absl import flags

from benchmarks.compiled.pieces import format_table, lines_of
from benchmarks.compiled.targets import find_target
from benchmarks.options import some
from benchmarks.results import check_output, write_lines
from dat_jax.cli.command_line import define_path, run
from dat_jax.evaluation.provenance import describe_commit, hash_engine

_PROGRAMS = ("search", "confidence", "train")


def main(argv: Sequence[str]) -> int:
    """Compiles as the command line says; returns the exit status."""
    options = flags.FlagValues()
    define_path(options, "output", "A file of JSON lines to write.")
    flags.DEFINE_string("target", None, "tpu:v4, tpu:v5e, tpu:v6e or gpu:h100.", options, True)
    flags.DEFINE_list("programs", [], f"Some of {', '.join(_PROGRAMS)}.", options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Checks, compiles, writes the lines, prints the table."""
    output, target = check_output(options.output), find_target(options.target)
    programs = some("programs", options.programs, _PROGRAMS)
    jax.config.update("jax_platforms", "cpu")  # the target need not be here
    compiler = "libtpu" if target.platform == "tpu" else "jaxlib"
    setting = {
        "target": options.target,
        "jax": jax.__version__,
        "compiler": f"{compiler} {importlib.metadata.version(compiler)}",
        "commit": describe_commit(),
        "engine_sha256": hash_engine(),
    }
    lines = ({"benchmark": "compiled"} | line | setting for line in lines_of(target, programs))
    lines = write_lines(output, lines)
    print("Estimates of the compiler; nothing was timed.\n")
    print(format_table(lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
