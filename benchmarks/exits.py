# SPDX-License-Identifier: Apache-2.0
"""Quality against average exit on `test`: each fixed exit, chance, and all tuned thresholds.

    python -m dat_jax.tuning --workdir=WORKDIR --policy=token_geometric
    python -m dat_jax.tuning --workdir=WORKDIR --policy=confidence
    python -m benchmarks.exits --workdir=WORKDIR --output=results/NAME.jsonl
    python -m benchmarks.plot results/NAME.jsonl results/NAME.svg

Thresholds were tuned on `valid`; this looks at `test` once for each of them.
"""

import sys
from collections.abc import Sequence
from typing import get_args

from absl import flags

from benchmarks._timing import check_output, write_lines
from dat_jax.command_line import define_path, define_workdir, run
from dat_jax.evaluation.evaluate import evaluate
from dat_jax.evaluation.tables import format_table
from dat_jax.exits.parsing import available_rules, parse_policy
from dat_jax.tuning.fronts import Kind, load_front
from dat_jax.workdir import Run


def main(argv: Sequence[str]) -> int:
    """Measures as the command line says; returns the exit status."""
    options = flags.FlagValues()
    define_workdir(options)
    define_path(options, "output", "A file of JSON lines to write.")
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Decodes with every policy and writes a summary of each."""
    workdir, output = Run(options.workdir), check_output(options.output)
    config = workdir.config
    names = [f"fixed:{depth}" for depth in config.model.exit_depths]
    kinds = [rule.kind for rule in available_rules(config.model)]
    names += [kind for kind in kinds if kind not in ("fixed", "confidence")]
    for kind in get_args(Kind):
        names += [point["policy"] for point in load_front(workdir, kind)]
    policies = [parse_policy(name, config.model) for name in names]

    trained, dataset = workdir.load(), workdir.dataset()
    summaries = []
    for policy in policies:
        summaries.append(evaluate(trained, dataset, policy, config.decoding, "test")[1])
        print(format_table(summaries[-1:]).splitlines()[-1], flush=True)
    write_lines(output, summaries)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
