# SPDX-License-Identifier: Apache-2.0
"""Tunes an exit rule of a trained model: `python -m dat_jax.tuning --workdir=W --policy=KIND`.

`--config.policy='tuned:AE<=2.5'` then decodes with the best rule within that average exit.
"""

import dataclasses
import sys
from collections.abc import Sequence

from absl import flags

from dat_jax.cli.command_line import define_checkpoints, define_workdir, given, run
from dat_jax.evaluation.tables import format_table
from dat_jax.exits.parsing import find_rule
from dat_jax.runs.workdir import Run
from dat_jax.runtime.programs import keep_programs
from dat_jax.tuning.fronts import KINDS, save_front, shown_budget
from dat_jax.tuning.search import CANDIDATES, SEGMENT, tune


def main(argv: Sequence[str]) -> int:
    """Tunes one kind of rule as `argv` says; returns the exit status."""
    options = flags.FlagValues()
    define_workdir(options)
    flags.DEFINE_enum("policy", None, KINDS, "Kind of rule to tune.", options, required=True)
    flags.DEFINE_integer(
        "candidates", CANDIDATES, "Threshold vectors to draw.", 1, flag_values=options
    )
    segment = "Width of a segment of cost; 1 is the cost of full depth. One vector of each decodes."
    flags.DEFINE_float("segment", SEGMENT, segment, 0.01, flag_values=options)
    flags.DEFINE_integer("beam_size", None, "By default the run's.", 1, flag_values=options)
    flags.DEFINE_float("length_penalty", None, "By default the run's.", 0, flag_values=options)
    shortlist = "Words of exit 1 that deeper exits choose among, by default the run's."
    flags.DEFINE_integer("shortlist", None, shortlist, 0, flag_values=options)
    trailing = "Nats behind the best from which on a hypothesis exits first, by default the run's."
    flags.DEFINE_float("trailing_gap", None, trailing, 0, flag_values=options)
    define_checkpoints(options)
    flags.DEFINE_integer("seed", 0, "Seed of the draws.", 0, flag_values=options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Tunes, prints the front and saves it in the workdir."""
    keep_programs()
    workdir, kind = Run(options.workdir), options.policy
    config = workdir.config
    find_rule(kind, kind, config.model)
    changes = given(options, "beam_size", "length_penalty", "shortlist", "trailing_gap")
    decoding = dataclasses.replace(config.decoding, **changes)
    settings = (options.candidates, options.segment, options.seed)
    with workdir.writing():
        trained = workdir.load(options.average_checkpoints, options.checkpoint)
        front = tune(trained, workdir.dataset(), kind, decoding, *settings)
        save_front(workdir, kind, front)
    print(format_table(front))
    budget = shown_budget(front[-1]["average_exit"])
    print(f"decode with --config.policy='tuned:{kind}:AE<={budget}'")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
