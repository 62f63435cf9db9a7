# SPDX-License-Identifier: Apache-2.0
"""Correctness and speed on an accelerator: one command, within eight minutes.

    python -m benchmarks.gpu --output=results/gpu.jsonl

The most telling first, each line written as soon as it is known: the continuous engine against the
lockstep engine, all sentences alike in float32, and so many in bfloat16; both engines at large
batches, attending to keys and values or to states; the training step of two configs. Then, as time
allows, beam search, float32, other sizes of a cohort, and the whole search as one CUDA graph. Of
requirements.txt it needs no tensorflow-datasets, tensorboardX, num2words or babel. It runs, slowly,
on a CPU too.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from absl import flags
from jax.sharding import NamedSharding

from benchmarks._lines import Line, read_lines
from benchmarks._systems import (
    System,
    continuous_system,
    format_lines,
    lockstep_system,
    measure,
    refills,
)
from benchmarks._task import LARGE, config_of, drawn_exits, make_config, make_task
from benchmarks._timing import check_output, interleaved, machine, rate
from configs import iwslt14_de_en, wmt14_en_fr
from dat_jax.command_line import define_path, run
from dat_jax.config import Config
from dat_jax.data.batching import Batch
from dat_jax.decoding.sizing import PLATFORMS, platform_of
from dat_jax.errors import UserError
from dat_jax.exits.rules import Fixed
from dat_jax.model.attention import AttendedForm
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.sharding import ROWS, WHOLE, data_parallel_mesh
from dat_jax.training.step import TrainState, make_train_step
from dat_jax.training.utilization import peak_flops, step_flops

_MINUTES = 8
_AVERAGE = 1.75
_SENTENCES = 16_384
_LENGTH = 64  # of a training batch's rows
_CHIPS_OF_WMT = 16  # that its batch is for; one device takes its share
_COHORT, _COHORTS = 256, (64, 128, 512, 2_048)
_GRAPHS = "--xla_gpu_enable_command_buffer=+WHILE"
_SMALL = {
    "dim": 64,
    "ff_dim": 128,
    "heads": 4,
    "num_layers": 4,
    "encoder_layers": 2,
    "vocabulary_size": 500,
}

_PROJECTED: AttendedForm = "keys_values"
Dtype = Literal["bfloat16", "float32"]


@contextlib.contextmanager
def attending_to(form: AttendedForm) -> Generator[None, None, None]:
    """Lets searches store what they attend to in this form, and take all sentences together."""
    name = jax.devices()[0].platform
    before = PLATFORMS.copy()
    PLATFORMS[name] = dataclasses.replace(platform_of(name), attended=form, window=_SENTENCES)
    try:
        yield
    finally:
        PLATFORMS.clear()
        PLATFORMS.update(before)


def check(dtype: Dtype, form: AttendedForm) -> Iterator[Line]:
    """Counts the sentences of 64 that both engines translate alike, greedily and by beam search."""
    task, rule = make_task(make_config(_SMALL, dtype), 64, 12, 16), drawn_exits(2.0, 4)
    line: Line = {"table": "correctness", "dtype": dtype, "attended": form, "sentences": 64}
    with attending_to(form), jax.default_matmul_precision("highest"):
        for beam in (1, 4):
            expected = task.search(rule, engine="lockstep", beam_size=beam, batch_size=64)
            sizes = {"cohort_size": 16 * beam, "pool_size": 32}
            actual = task.search(rule, engine="continuous", beam_size=beam, **sizes)
            pairs = zip(actual.hypotheses, expected.hypotheses, strict=True)
            same = [(a.tokens, a.exits) == (b.tokens, b.exits) for a, b in pairs]
            line[f"alike_beam_{beam}"] = sum(same)
    yield line


def decoding(
    dtype: Dtype, form: AttendedForm, beam: int, batch: int, repetitions: int
) -> Iterator[Line]:
    """Both engines in turn."""
    task = make_task(make_config(LARGE, dtype), _SENTENCES, 28, 32)
    full, masked = Fixed(task.num_layers), drawn_exits(_AVERAGE, task.num_layers)
    one, many = task.first(batch), task.first(refills(task, beam, batch))
    with attending_to(form):
        systems = [
            lockstep_system(one, "lockstep, full depth", full, beam, batch),
            lockstep_system(one, "lockstep, masks", masked, beam, batch),
            lockstep_system(one, "lockstep, cut", Fixed(2), beam, batch),
            continuous_system(many, _AVERAGE, beam, batch),
        ]
        yield from _measured(systems, dtype, form, repetitions)


def cohorts(sizes: Sequence[int], repetitions: int) -> Iterator[Line]:
    """The continuous engine with cohorts of these sizes, and lockstep beside each."""
    task, form = make_task(make_config(LARGE, "bfloat16"), _SENTENCES, 28, 32), _PROJECTED
    full = Fixed(task.num_layers)
    with attending_to(form):
        for size in sizes:
            systems = [
                lockstep_system(task.first(size), "lockstep, full depth", full, 1, size),
                continuous_system(task.first(refills(task, 1, size)), _AVERAGE, 1, size),
            ]
            yield from _measured(systems, "bfloat16", form, repetitions)


def _measured(
    systems: list[System], dtype: Dtype, form: AttendedForm, repetitions: int
) -> Iterator[Line]:
    labels = {"table": f"{dtype}, {form}"}
    lines = measure(systems, labels, repetitions)
    print(format_lines(lines), flush=True)
    for line in lines:
        yield line | {"dtype": dtype, "attended": form}


def training(name: str, config: Config, tokens: int, repetitions: int) -> Iterator[Line]:
    """The speed of a config's training step on one device, with so many tokens on either side."""
    size = config.data.vocabulary_size
    training = dataclasses.replace(config.training, sharding="replicated", microbatches=1)
    config = dataclasses.replace(config, training=training)
    model, optimizer = Transformer(config.model, size, size), make_optimizer(config)
    mesh = data_parallel_mesh(jax.devices()[:1])
    step = make_train_step(model, optimizer, config, mesh)
    state = TrainState.create(init_params(model, jax.random.key(0)), optimizer)
    state = jax.device_put(state, NamedSharding(mesh, WHOLE))
    ids = np.random.default_rng(0).integers(4, size, (tokens // _LENGTH, _LENGTH), np.int32)
    batch = Batch(ids, ids)
    placed = jax.device_put(batch, NamedSharding(mesh, ROWS))

    def one_step() -> None:
        nonlocal state
        state, metrics = step(state, placed, jax.random.key(0))
        assert np.isfinite(np.asarray(metrics["loss"].total))

    [(_, seconds)] = interleaved([one_step], 3 * repetitions, f"training step of {name}")
    line: Line = {"table": "training", "config": name, "dtype": config.model.dtype}
    line |= rate(ids.size, seconds)
    peak = peak_flops([jax.devices()[0].device_kind], config.model.dtype)
    if peak:
        lengths = np.full(len(ids), _LENGTH)
        flops = step_flops(model, config, lengths, lengths)
        per_second = flops * line["tokens_per_second"] / ids.size
        line["mfu"] = round(per_second / peak, 3)
    yield line


def one_graph(output: Path) -> Iterator[Line]:
    """The continuous engine with its loops inside one CUDA graph, in a process of its own."""
    part = output.with_name(output.name + ".graph")
    command = [sys.executable, "-m", "benchmarks.gpu", f"--output={part}", "--only=cohort"]
    environment = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {_GRAPHS}"}
    try:
        subprocess.run(command, env=os.environ | environment, timeout=180, check=True)
        for line in read_lines(part):
            yield line | {"xla_flags": _GRAPHS}
    except subprocess.SubprocessError as error:
        print(f"no line of one graph: {error}", flush=True)
    finally:
        part.unlink(missing_ok=True)


def parts(output: Path, repetitions: int) -> Iterator[tuple[str, Iterator[Line]]]:
    """Yields what there is to measure, the most telling first."""
    for dtype, form in (("float32", _PROJECTED), ("bfloat16", _PROJECTED), ("bfloat16", "states")):
        yield f"correctness in {dtype}, {form}", check(dtype, form)
    speed = partial(decoding, repetitions=repetitions)
    yield "greedy, batch 256", speed("bfloat16", _PROJECTED, 1, 256)
    yield "greedy, batch 256, states", speed("bfloat16", "states", 1, 256)
    yield "greedy, batch 1,024", speed("bfloat16", _PROJECTED, 1, 1_024)
    for module, share in ((iwslt14_de_en, 1), (wmt14_en_fr, _CHIPS_OF_WMT)):
        name = module.__name__.rpartition(".")[2]
        config = config_of(module)
        tokens = config.training.batch_tokens // share
        yield f"training step of {name}", training(name, config, tokens, repetitions)
    yield "greedy, batch 1,024, states", speed("bfloat16", "states", 1, 1_024)
    yield "beam 4", speed("bfloat16", _PROJECTED, 4, 256)
    yield "float32", speed("float32", _PROJECTED, 1, 256)
    yield "cohorts", cohorts(_COHORTS, repetitions)
    if jax.devices()[0].platform == "gpu":
        yield "one graph", one_graph(output)


def main(argv: Sequence[str]) -> int:
    """Measures as the command line says; returns the exit status."""
    options = flags.FlagValues()
    define_path(options, "output", "A file of JSON lines to write.")
    flags.DEFINE_integer("repetitions", 3, "Of each measurement.", 1, flag_values=options)
    flags.DEFINE_enum("only", None, ["cohort"], "One part of it.", flag_values=options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Checks, measures what there is time for, and writes each line as soon as it is known."""
    output, started, setting = check_output(options.output), time.monotonic(), machine()
    todo = parts(output, options.repetitions)
    if options.only:
        todo = iter([("cohort", cohorts((_COHORT,), options.repetitions))])
    lines = []
    with output.open("w", encoding="utf-8") as file:
        for name, part in todo:
            minutes = (time.monotonic() - started) / 60
            if minutes > _MINUTES - 1:
                print(f"no time left for {name}", flush=True)
                continue
            print(f"{minutes:.1f} min: {name}", flush=True)
            for line in part:
                lines.append({"benchmark": "gpu"} | line | setting)
                print(json.dumps(lines[-1]), file=file, flush=True)
    exact = [
        line for line in lines if line["table"] == "correctness" and line["dtype"] == "float32"
    ]
    for line in exact:
        alike = [value for key, value in line.items() if key.startswith("alike_")]
        if min(alike) < line["sentences"]:
            raise UserError("the engines differ on this device; see the lines `correctness`")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
