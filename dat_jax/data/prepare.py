# SPDX-License-Identifier: Apache-2.0
"""Prepares the data of a run: `python -m dat_jax.data.prepare --config=FILE --workdir=DIR`.

`train.py` does the same before training, unless the data is already prepared.
"""

import sys
from collections.abc import Sequence

from absl import flags

from dat_jax.cli.command_line import define_config, define_workdir, read_config, run
from dat_jax.config import Config
from dat_jax.runs.compatibility import check_whole
from dat_jax.runs.workdir import Run


def main(argv: Sequence[str]) -> int:
    """Prepares the data of `--config` in `--workdir`; returns the exit status."""
    options = flags.FlagValues()
    define_config(options, argv)
    define_workdir(options)

    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    config = Config.from_dict(read_config(options))
    workdir = Run(options.workdir)
    with workdir.writing():
        check_whole(workdir)
        print(workdir.prepare(config).report())


if __name__ == "__main__":
    sys.exit(main(sys.argv))
