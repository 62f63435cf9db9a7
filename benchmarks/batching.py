# SPDX-License-Identifier: Apache-2.0
"""Speed at which batches are made, and the share of them that is padding.

    python -m benchmarks.batching --workdir=DIR [--data=text:FOLDER] [--num_shapes=8]

Measures one epoch over the training split prepared in DIR, which `--data` prepares first if need be
with a joint vocabulary of 8,000 BPE pieces. The last line of output is JSON.
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
from dat_jax.data.batching import Batch, BatchIterator, shapes_for
from dat_jax.runs.workdir import Run

_EPOCHS = 3


def measure(workdir: Run, num_shapes: int, batch_tokens: int, row_multiple: int) -> dict:
    """Returns the measurements of the training split of `workdir`, the fastest of 3 epochs."""
    dataset = workdir.dataset()
    train, valid = dataset.tokens("train"), dataset.tokens("valid")
    started = time.perf_counter()
    shapes = shapes_for([train, valid], num_shapes, batch_tokens, row_multiple)
    choosing = time.perf_counter() - started
    batches = BatchIterator(train, shapes, seed=0)
    seconds = min(_seconds(batches) for _ in range(_EPOCHS))
    padded = sum(_slots(next(batches)) for _ in range(batches.batches_per_epoch))
    real = train.header.source_tokens + train.header.target_tokens
    return {
        "benchmark": "batching",
        "pairs": len(train),
        "pairs_per_second": round(len(train) / seconds),
        "real_tokens": round(real / padded, 4),
        "batches_per_epoch": batches.batches_per_epoch,
        "batch_tokens": batch_tokens,
        "shapes": [list(shape) for shape in shapes],
        "seconds_to_choose_shapes": round(choosing, 4),
        "cpus": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "numpy": np.__version__,
    }


def _seconds(batches: BatchIterator) -> float:
    started = time.perf_counter()
    for _ in range(batches.batches_per_epoch):
        next(batches)
    return time.perf_counter() - started


def _slots(batch: Batch) -> int:
    return batch.source.size + batch.target.size


def main(argv: Sequence[str]) -> int:
    """Measures as the command line says; returns the exit status."""
    options = flags.FlagValues()
    define_workdir(options)
    source = "A data.source to prepare there, such as text:FOLDER."
    flags.DEFINE_string("data", None, source, options)
    flags.DEFINE_integer("num_shapes", 8, "training.num_shapes", 1, flag_values=options)
    flags.DEFINE_integer("batch_tokens", 8_192, "training.batch_tokens", 1, flag_values=options)
    multiple = "Rows of every batch are a multiple of this."
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


if __name__ == "__main__":
    sys.exit(main(sys.argv))
