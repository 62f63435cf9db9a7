# SPDX-License-Identifier: Apache-2.0
"""Quality against average exit on `test`: each fixed exit, chance, and all tuned thresholds.

    python -m dat_jax.tuning --workdir=WORKDIR --policy=token_geometric
    python -m dat_jax.tuning --workdir=WORKDIR --policy=confidence
    python -m benchmarks.exits --workdir=WORKDIR --output=results/NAME.jsonl
    python -m benchmarks.plot results/NAME.jsonl results/NAME.svg

Thresholds were tuned on `valid`; this looks at `test` once for each of them.
"""

from pathlib import Path
from typing import get_args

from absl import flags

from benchmarks.measure import check_output, write_lines
from dat_jax.command_line import define_workdir, run
from dat_jax.config import Config
from dat_jax.data.dataset import open_dataset
from dat_jax.evaluation import evaluate
from dat_jax.exits.policies import available_kinds, parse_policy
from dat_jax.report import format_table
from dat_jax.tuned import Kind, load_front
from dat_jax.workdir import load

WORKDIR = define_workdir()
OUTPUT = flags.DEFINE_string("output", None, "A file of JSON lines to write.", required=True)


def main() -> None:
    """Decodes with every policy and writes a summary of each."""
    workdir, output = Path(WORKDIR.value), check_output(OUTPUT.value)
    config = Config.load(workdir / "config.json")
    names = [f"fixed:{depth}" for depth in config.model.exit_depths]
    names += [k for k in available_kinds(config.model) if k not in ("fixed", "confidence")]
    for kind in get_args(Kind):
        names += [point["policy"] for point in load_front(workdir, kind)]
    policies = [parse_policy(name, config.model) for name in names]

    trained = load(config, open_dataset(workdir), workdir)
    summaries = []
    for policy in policies:
        summaries.append(evaluate(trained, policy, config.decoding, "test")[1])
        print(format_table(summaries[-1:]).splitlines()[-1], flush=True)
    write_lines(output, summaries)


if __name__ == "__main__":
    run(main)
