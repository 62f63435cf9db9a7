# SPDX-License-Identifier: Apache-2.0
"""Correctness and speed on an accelerator: one command, within eight minutes.

    python -m benchmarks.gpu --output=results/gpu.jsonl

The continuous engine against the lockstep engine: all sentences alike in float32, and so many in
bfloat16; both engines at large batches, in both dtypes, for drawn exits; and the training step. Of
requirements.txt it needs no tensorflow-datasets, tensorboardX, num2words or babel. It runs, slowly,
on a CPU too.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from benchmarks._systems import (
    System,
    continuous_system,
    format_lines,
    lockstep_system,
    measure,
    refills,
)
from benchmarks._task import drawn_exits, make_config, make_task
from benchmarks._timing import check_output, interleaved, machine, rate, write_lines
from dat_jax.command_line import define_path, run
from dat_jax.data.batching import Batch
from dat_jax.errors import UserError
from dat_jax.exits.rules import Fixed
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.sharding import data_parallel_mesh
from dat_jax.training.step import TrainState, make_train_step

_MINUTES = 8
_DTYPES = ("bfloat16", "float32")
_BATCHES = (128, 512)
_AVERAGE = 1.75
_SENTENCES = 8_192
_LARGE = {
    "dim": 512,
    "ff_dim": 1024,
    "heads": 8,
    "num_layers": 6,
    "encoder_layers": 6,
    "vocabulary_size": 10_000,
}
_SMALL = {
    "dim": 64,
    "ff_dim": 128,
    "heads": 4,
    "num_layers": 4,
    "encoder_layers": 2,
    "vocabulary_size": 500,
}


def check(dtype: Any) -> dict[str, Any]:
    """Counts the sentences of 64 that both engines translate alike, greedily and by beam search."""
    task, alike = make_task(make_config(_SMALL, dtype), 64, 12, 16), {}
    rule = drawn_exits(2.0, task.num_layers)
    with jax.default_matmul_precision("highest"):
        for beam in (1, 4):
            expected = task.search(rule, engine="lockstep", beam_size=beam, batch_size=64)
            sizes = {"cohort_size": 16 * beam, "pool_size": 32}
            actual = task.search(rule, engine="continuous", beam_size=beam, **sizes)
            pairs = zip(actual.hypotheses, expected.hypotheses, strict=True)
            same = [(a.tokens, a.exits) == (b.tokens, b.exits) for a, b in pairs]
            alike[f"alike_beam_{beam}"] = sum(same)
    labels = {"benchmark": "gpu", "table": "correctness", "dtype": dtype, "sentences": 64}
    return labels | alike


def decoding(dtype: Any, beam: int) -> Iterator[System]:
    """Both engines at large batches."""
    task = make_task(make_config(_LARGE, dtype), _SENTENCES, 28, 32)
    full, masked = Fixed(task.num_layers), drawn_exits(_AVERAGE, task.num_layers)
    for batch in _BATCHES:
        one, many = task.first(batch), task.first(refills(task, beam, batch))
        yield lockstep_system(one, "lockstep, full depth", full, beam, batch)
        yield lockstep_system(one, "lockstep, masks", masked, beam, batch)
        yield lockstep_system(one, "lockstep, cut", Fixed(2), beam, batch)
        yield continuous_system(many, _AVERAGE, beam, batch)


def training(dtype: Any, repetitions: int) -> dict[str, Any]:
    """The speed of the training step, all exits at once."""
    task = make_task(make_config(_LARGE, dtype), 256, 32, 32)
    trained, config = task.model.trained, task.model.trained.config
    mesh, optimizer = data_parallel_mesh(jax.devices()[:1]), make_optimizer(config.optimizer)
    step = make_train_step(trained.model, optimizer, config, mesh)
    state = TrainState.create(trained.params, optimizer)
    batch = jax.device_put(Batch(task.source, task.source))

    def run() -> None:
        nonlocal state
        state, metrics = step(state, batch, jax.random.key(0))
        assert np.isfinite(np.asarray(metrics["loss"].total))

    [(_, seconds)] = interleaved([run], 3 * repetitions, "training step")
    labels = {"benchmark": "gpu", "table": "training", "dtype": dtype}
    return labels | rate(task.source.size, seconds)


def main(argv: Sequence[str]) -> int:
    """Measures as the command line says; returns the exit status."""
    options = flags.FlagValues()
    define_path(options, "output", "A file of JSON lines to write.")
    flags.DEFINE_integer("repetitions", 3, "Of each measurement.", 1, flag_values=options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Checks, measures what there is time for, writes the lines, prints the tables."""
    output, started = check_output(options.output), time.monotonic()
    lines = [check(dtype) for dtype in _DTYPES]
    print(*map(json.dumps, lines), sep="\n", flush=True)
    for beam in (1, 4):
        for dtype in _DTYPES:
            if time.monotonic() - started > 60 * _MINUTES / 2:
                print(f"no time left for beam {beam} in {dtype}")
                continue
            systems = list(decoding(dtype, beam))
            measured = measure(systems, {"table": dtype}, options.repetitions)
            print(format_lines(measured), flush=True)
            lines += [line | {"benchmark": "gpu", "dtype": dtype} for line in measured]
    lines += [training(dtype, options.repetitions) for dtype in _DTYPES]
    setting = machine()
    write_lines(output, (line | setting for line in lines))
    exact = next(line for line in lines if line["dtype"] == "float32")
    if any(exact[f"alike_beam_{beam}"] < exact["sentences"] for beam in (1, 4)):
        raise UserError("the engines differ on this device; see the lines `correctness`")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
