# SPDX-License-Identifier: Apache-2.0
"""Speed of batching, and the share of padding.

    python -m benchmarks.batching --workdir=DIR [--data=text:FOLDER] [--num_shapes=8]

Measures one epoch over the training split prepared in DIR. `--data` prepares it if necessary, with
a joint vocabulary of 8,000 BPE pieces. The last line of output is JSON.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Sequence

import numpy as np
from absl import flags

from configs.base import get_config
from dat_jax.cli.command_line import define_workdir, run
from dat_jax.config import Config
from dat_jax.data.batching import BatchIterator, shapes_for
from dat_jax.runs.workdir import Run

_EPOCHS = 3


def main(argv: Sequence[str]) -> int:
    """Measures as the command line says; returns the exit status."""
    options = flags.FlagValues()
    define_workdir(options)
    source = "A data.source to prepare in the workdir, such as text:FOLDER."
    flags.DEFINE_string("data", None, source, options)
    flags.DEFINE_integer("num_shapes", 8, "training.num_shapes", 1, flag_values=options)
    flags.DEFINE_integer("batch_tokens", 8_192, "training.batch_tokens", 1, flag_values=options)
    multiple = "The rows of each batch are a multiple of this."
    flags.DEFINE_integer("row_multiple", 8, multiple, 1, flag_values=options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Prepares the data if asked to, measures and prints."""
    workdir = Run(options.workdir)
    if options.data is not None:
        values = get_config().to_dict()
        values["data"]["source"] = options.data
        with workdir.writing():
            workdir.prepare(Config.from_dict(values))
    result = measure(workdir, options.num_shapes, options.batch_tokens, options.row_multiple)
    print(
        f"{result['pairs_per_second']:,} pairs/s; {result['real_tokens']:.1%} of the tokens in "
        f"{len(result['shapes'])} shapes are real"
    )
    print(json.dumps(result))


def measure(workdir: Run, num_shapes: int, batch_tokens: int, row_multiple: int) -> dict:
    """Returns the measurements of the training split, of the fastest of 3 epochs."""
    dataset = workdir.dataset()
    train, valid = dataset.tokens("train"), dataset.tokens("valid")
    started = time.perf_counter()
    shapes = shapes_for([train, valid], num_shapes, batch_tokens, row_multiple)
    choosing = time.perf_counter() - started
    batches = BatchIterator(train, shapes, seed=0)
    epochs = [_epoch(batches) for _ in range(_EPOCHS)]
    real = train.header.source_tokens + train.header.target_tokens
    return {
        "benchmark": "batching",
        "pairs": len(train),
        "pairs_per_second": round(len(train) / min(seconds for seconds, _ in epochs)),
        "real_tokens": round(real / epochs[-1][1], 4),
        "batches_per_epoch": batches.batches_per_epoch,
        "batch_tokens": batch_tokens,
        "shapes": [list(shape) for shape in shapes],
        "seconds_to_choose_shapes": round(choosing, 4),
        "cpus": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "numpy": np.__version__,
    }


def _epoch(batches: BatchIterator) -> tuple[float, int]:
    """Returns the seconds of an epoch, and the tokens of its batches including padding."""
    started, tokens = time.perf_counter(), 0
    for _ in range(batches.batches_per_epoch):
        batch = next(batches)
        tokens += batch.source.size + batch.target.size
    return time.perf_counter() - started, tokens


if __name__ == "__main__":
    sys.exit(main(sys.argv))
