# SPDX-License-Identifier: Apache-2.0
"""Correctness and speed on an accelerator: one command, within eight minutes.

    python -m benchmarks.gpu --output=results/gpu.jsonl

The most telling first, each line written as soon as it is known: blocks on gathered rows against
blocks on all rows, all sentences alike in float32, and their number in bfloat16; full depth, a cut
and exits with many sentences in work, with caches of keys and values or of states; the training
step of two configs. Then, as time allows, beam search, float32, fewer sentences in work, and the
whole search as one CUDA graph. Of requirements.txt it needs no tensorflow-datasets, tensorboardX,
num2words or babel. It runs, slowly, on a CPU too.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from absl import flags
from jax.sharding import NamedSharding

from benchmarks.decode.systems import engine, format_lines, measure
from benchmarks.results import Line, check_output, read_lines
from benchmarks.task import LARGE, Task, config_of, drawn_exits, make_config, make_task
from benchmarks.timing import interleaved, machine, rate
from configs import iwslt14_de_en, wmt14_en_fr
from dat_jax.checkpoints.state import TrainState
from dat_jax.cli.command_line import define_path, run
from dat_jax.config import Config
from dat_jax.data.batching import Batch
from dat_jax.decoding.search import SearchResult, search
from dat_jax.decoding.sizing import Platform, platform_of
from dat_jax.errors import UserError
from dat_jax.exits.questions import Rule
from dat_jax.exits.rules import Fixed
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.sharding import ROWS, WHOLE, data_parallel_mesh
from dat_jax.training.step import make_train_step
from dat_jax.training.utilization import peak_flops, step_flops

_MINUTES = 8
_AVERAGE = 1.75
_SENTENCES = 16_384
_LENGTH = 64  # of a training batch's rows
_CHIPS_OF_WMT = 16  # that its batch is for; one device takes its share
_WORK, _WORKS = 256, (64, 1_024, 4_096)
_GRAPHS = "--xla_gpu_enable_command_buffer=+WHILE"
_SMALL = {
    "dim": 64,
    "ff_dim": 128,
    "heads": 4,
    "num_layers": 4,
    "encoder_layers": 2,
    "vocabulary_size": 500,
}

Dtype = Literal["bfloat16", "float32"]
Form = Literal["keys_values", "states"]


def platform(form: Form, **changes: Any) -> Platform:
    """The device's sizes, with caches of this form, and all sentences in one group."""
    own = platform_of(jax.devices()[0])
    projected = float(form == "keys_values")
    return dataclasses.replace(own, projected=projected, window=_SENTENCES, **changes)


def check(dtype: Dtype, form: Form) -> Iterator[Line]:
    """Counts the sentences of 64 that are translated alike with gathered rows and few sentences in
    work, and with blocks on all rows and all sentences in work."""
    task, rule = make_task(make_config(_SMALL, dtype), 64, 12, 16), drawn_exits(2.0, 4)
    line: Line = {"table": "correctness", "dtype": dtype, "caches": form, "sentences": 64}
    gathering, plain = platform(form, fewest_rows=4), platform(form, fewest_rows=1 << 20)
    with jax.default_matmul_precision("highest"):
        for beam in (1, 4):
            pairs = zip(
                _search(task, rule, beam, 24, gathering).hypotheses,
                _search(task, rule, beam, 64, plain).hypotheses,
                strict=True,
            )
            same = [(a.tokens, a.exits) == (b.tokens, b.exits) for a, b in pairs]
            line[f"alike_beam_{beam}"] = sum(same)
    yield line


def _search(task: Task, rule: Rule, beam: int, in_work: int, sizes: Platform) -> SearchResult:
    trained = task.model.trained
    room = {"max_length_ratio": 0.0, "max_length_extra": int(task.lengths.max())}
    decoding = dataclasses.replace(
        trained.config.decoding, beam_size=beam, batch_size=in_work, **room
    )
    limits = task.lengths.tolist()
    return search(trained, rule, list(task.source), decoding, limits=limits, platform=sizes)


def decoding(
    dtype: Dtype, form: Form, beam: int, works: Sequence[int], repetitions: int
) -> Iterator[Line]:
    """Full depth, a cut at 2 and exits in turn, each with the same sentences in work."""
    task = make_task(make_config(LARGE, dtype), max(works), 28, 32)
    rules = {
        "full depth": Fixed(task.num_layers),
        "cut": Fixed(2),
        "exits": drawn_exits(_AVERAGE, task.num_layers),
    }
    for in_work in works:
        few, sizes = task.first(in_work), platform(form)
        systems = [
            engine(few, name, rule, beam, in_work)._replace(
                run=partial(_search, few, rule, beam, in_work, sizes)
            )
            for name, rule in rules.items()
        ]
        lines = measure(systems, {"table": f"{dtype}, {form}"}, repetitions)
        print(format_lines(lines), flush=True)
        for line in lines:
            yield line | {"dtype": dtype, "caches": form}


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
    """The search with its loops inside one CUDA graph, in a process of its own."""
    part = output.with_name(output.name + ".graph")
    command = [sys.executable, "-m", "benchmarks.gpu", f"--output={part}", "--only=greedy"]
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
    for dtype, form in (
        ("float32", "keys_values"),
        ("bfloat16", "keys_values"),
        ("bfloat16", "states"),
    ):
        yield f"correctness in {dtype}, {form}", check(dtype, form)
    speed = partial(decoding, repetitions=repetitions)
    yield "greedy", speed("bfloat16", "keys_values", 1, [_WORK])
    yield "greedy, states", speed("bfloat16", "states", 1, [_WORK])
    for module, share in ((iwslt14_de_en, 1), (wmt14_en_fr, _CHIPS_OF_WMT)):
        name = module.__name__.rpartition(".")[2]
        config = config_of(module)
        tokens = config.training.batch_tokens // share
        yield f"training step of {name}", training(name, config, tokens, repetitions)
    yield "greedy, other sentences in work", speed("bfloat16", "states", 1, _WORKS)
    yield "beam 5", speed("bfloat16", "states", 5, [_WORK])
    yield "float32", speed("float32", "keys_values", 1, [_WORK])
    if jax.devices()[0].platform == "gpu":
        yield "one graph", one_graph(output)


def main(argv: Sequence[str]) -> int:
    """Measures as the command line says; returns the exit status."""
    options = flags.FlagValues()
    define_path(options, "output", "A file of JSON lines to write.")
    flags.DEFINE_integer("repetitions", 3, "Of each measurement.", 1, flag_values=options)
    flags.DEFINE_enum("only", None, ["greedy"], "One part of it.", flag_values=options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Checks, measures what there is time for, and writes each line as soon as it is known."""
    output, started, setting = check_output(options.output), time.monotonic(), machine()
    todo = parts(output, options.repetitions)
    if options.only:
        lines_of_it = decoding("bfloat16", "states", 1, [_WORK], options.repetitions)
        todo = iter([("greedy", lines_of_it)])
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
            raise UserError(
                f"only {min(alike)} of {line['sentences']} translations are alike with gathered "
                "rows and without, in float32: see the lines `correctness` before those of speed"
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
