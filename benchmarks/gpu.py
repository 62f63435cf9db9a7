# SPDX-License-Identifier: Apache-2.0
"""Whether all is right on an accelerator, and how fast: one command, within eight minutes.

    python -m benchmarks.gpu --output=results/gpu.jsonl

The continuous engine against the lockstep engine, in float32 and at full precision; both engines at
large batches, in bfloat16 and float32, for drawn exits; and the training step. Of requirements.txt
it needs JAX, Flax, optax, absl, jaxtyping, tqdm and sentencepiece; it runs, slowly, on a CPU too.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import app, flags

from benchmarks.engines import continuously, drawn_exits, in_lockstep, make_task
from benchmarks.measure import check_output, interleaved, machine, rate, write_lines
from benchmarks.systems import (
    System,
    continuous_system,
    format_lines,
    lockstep_system,
    measure,
    model_config,
    refills,
)
from dat_jax.config import (
    Config,
    DataConfig,
    DecodingConfig,
    ExitConfig,
    OptimizerConfig,
    TrainingConfig,
)
from dat_jax.data.batching import Batch
from dat_jax.decoding.schedule import Sizes
from dat_jax.errors import UserError
from dat_jax.exits.policies import Fixed
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.state import TrainState
from dat_jax.training.step import data_parallel_mesh, make_train_step, replicated, row_sharded

_MINUTES = 8
_DTYPES = ("bfloat16", "float32")
_BATCHES = (128, 512)
_AVERAGE = 1.75
_SENTENCES = 8_192
_LARGE = {"dim": 512, "ff_dim": 1024, "heads": 8, "num_layers": 6, "encoder_layers": 6}
_SMALL = {"dim": 64, "ff_dim": 128, "heads": 4, "num_layers": 4, "encoder_layers": 2}
_VOCABULARY = 10_000


def check() -> dict[str, Any]:
    """How many of 64 sentences both engines translate alike, greedily and by beam search."""
    task = make_task(model_config(_SMALL), 500, 64, 12, 16)
    policy, alike = drawn_exits(2.0, _SMALL["num_layers"]), {}
    with jax.default_matmul_precision("highest"):
        for beam in (1, 4):
            expected, _ = in_lockstep(task, policy, beam, 64)()
            found, _ = continuously(task, policy, beam, Sizes(16 * beam, 32))()
            same = (found.tokens == expected.tokens) & (found.exits == expected.exits)
            alike[f"alike_beam_{beam}"] = int(same.all(axis=1).sum())
    return {"benchmark": "gpu", "table": "correctness", "sentences": 64} | alike


def decoding(dtype: Any, beam: int) -> Iterator[System]:
    """Both engines at large batches."""
    config = model_config(_LARGE, dtype)
    task = make_task(config, _VOCABULARY, _SENTENCES, 28, 32)
    masked = drawn_exits(_AVERAGE, config.num_layers)
    for batch in _BATCHES:
        full = Fixed(config.num_layers)
        one, many = task.first(batch), task.first(refills(beam, batch))
        yield lockstep_system(one, "lockstep, full depth", full, beam, batch)
        yield lockstep_system(one, "lockstep, masks", masked, beam, batch)
        yield lockstep_system(one, "lockstep, cut", Fixed(2), beam, batch)
        yield continuous_system(many, _AVERAGE, beam, batch)


def training(dtype: Any, repetitions: int) -> dict[str, Any]:
    """The speed of the training step, all exits at once."""
    task = make_task(model_config(_LARGE, dtype), _VOCABULARY, 256, 32, 32)
    config = Config(
        data=DataConfig("generated:", "de", "en", "joint", _VOCABULARY, "bpe", 32, 0),
        model=task.model.config,
        exit=ExitConfig("correctness", 0.1, 0.0, "mean", "per_token", 1.0, "model_and_head", 0),
        optimizer=OptimizerConfig(5e-4, 4_000, 0.9, 0.98, 1e-9, 0.0, 3.0),
        training=TrainingConfig(
            *(1, 8_192, 1, 1, "aligned", 1, "per_token", 0.0, "1", 0.1, 0, 1, 1, 1, 1, "")
        ),
        decoding=DecodingConfig("fixed", "continuous", (), 1, 1.0, 1.5, 16, 128, 0, 0, 1),
    )
    mesh, optimizer = data_parallel_mesh(jax.devices()[:1]), make_optimizer(config.optimizer)
    step = make_train_step(task.model, optimizer, config, mesh)
    state = jax.device_put(TrainState.create(task.params, optimizer), replicated(mesh))
    batch = jax.device_put(Batch(task.source, task.source), row_sharded(mesh))

    def run() -> None:
        nonlocal state
        state, metrics = step(state, batch, jax.random.key(0))
        assert np.isfinite(np.asarray(metrics["loss"].total))

    [(_, seconds)] = interleaved([run], 3 * repetitions, "training step")
    labels = {"benchmark": "gpu", "table": "training", "dtype": dtype}
    return labels | rate(task.source.size, seconds)


def main(_: Any) -> None:
    """Checks, measures what there is time for, writes the lines, prints the tables."""
    try:
        output, started = check_output(flags.FLAGS.output), time.monotonic()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    lines = [check()]
    print(json.dumps(lines[0]), flush=True)
    for beam in (1, 4):
        for dtype in _DTYPES:
            if time.monotonic() - started > 60 * _MINUTES / 2:
                print(f"no time left for beam {beam} in {dtype}")
                continue
            systems = list(decoding(dtype, beam))
            measured = measure(systems, {"table": dtype}, flags.FLAGS.repetitions)
            print(format_lines(measured), flush=True)
            lines += [line | {"benchmark": "gpu", "dtype": dtype} for line in measured]
    lines += [training(dtype, flags.FLAGS.repetitions) for dtype in _DTYPES]
    setting = machine()
    write_lines(output, (line | setting for line in lines))
    if any(lines[0][f"alike_beam_{beam}"] < lines[0]["sentences"] for beam in (1, 4)):
        raise SystemExit("error: the engines differ on this device; see the line `correctness`")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "A file of JSON lines to write.", required=True)
    flags.DEFINE_integer("repetitions", 3, "Of each measurement.", 1)
    app.run(main)
