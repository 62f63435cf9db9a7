# SPDX-License-Identifier: Apache-2.0
"""Programs as compilers make them for TPUs and GPUs that need not be here.

    python -m benchmarks.compiled --target=tpu:v5e --output=results/compiled_v5e.jsonl

Compiles the search and the training step, and says what they come to, piece by piece: on TPU the
cycles that its compiler estimates, on GPU the launches. Nothing is timed, and the estimate leaves
out gathers and scatters, which are counted. Needs `jax[tpu]`, or for a GPU the wheels
that the message names.
"""

import importlib.metadata
import json
import sys
from collections.abc import Sequence

import jax
from absl import flags

from benchmarks.compiled.pieces import lines_of
from benchmarks.compiled.tables import format_table
from benchmarks.compiled.targets import find_target
from benchmarks.options import some
from benchmarks.results import check_output
from dat_jax.cli.command_line import define_path, run
from dat_jax.evaluation.provenance import describe_commit, hash_engine

_PROGRAMS = ("search", "train")


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
    jax.config.update("jax_platforms", "cpu")  # what is compiled for need not be here
    setting = {
        "target": options.target,
        "jax": jax.__version__,
        "compiler": _version("libtpu" if target.platform == "tpu" else "jaxlib"),
        "commit": describe_commit(),
        "engine_sha256": hash_engine(),
    }
    lines = []
    with output.open("w", encoding="utf-8") as file:
        for line in lines_of(target, programs):
            lines.append({"benchmark": "compiled"} | line | setting)
            print(json.dumps(lines[-1]), file=file, flush=True)
    print("Estimates of the compiler; nothing was timed.\n")
    print(format_table(lines))


def _version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
