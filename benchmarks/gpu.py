# SPDX-License-Identifier: Apache-2.0
"""Correctness and speed on an accelerator: one command, at most eight minutes.

    python -m benchmarks.gpu --output=results/gpu.jsonl

Starts with what matters most and writes each line as soon as it is known. First come the numbers of
equal sentences with gathered rows and with all rows (all must be equal in float32); full depth, a
cut and exits with many sentences in work, with caches of keys and values or of states; the training
step of two configs. Then, if time is left, beam search, float32, fewer sentences in work, and the
search as one CUDA graph. Of requirements.txt this needs no tensorflow-datasets, tensorboardX,
num2words or babel. It also runs, slowly, on a CPU.
"""

import dataclasses
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

from benchmarks.decode.systems import format_lines, measure, ways
from benchmarks.results import Line, check_output, read_lines, write_lines
from benchmarks.task import LARGE, config_of, drawn_exits, make_config, make_task
from benchmarks.timing import interleaved, machine, rate
from configs import iwslt14_de_en, wmt14_en_fr
from dat_jax.checkpoints.state import TrainState
from dat_jax.cli.command_line import define_path, run
from dat_jax.config import Config
from dat_jax.data.batching import Batch
from dat_jax.decoding.sizing import Platform, platform_of
from dat_jax.errors import UserError
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.sharding import ROWS, WHOLE, data_parallel_mesh
from dat_jax.training.step import make_train_step
from dat_jax.training.utilization import peak_flops, step_flops

_MINUTES = 8
_SENTENCES = 16_384
_LENGTH = 64  # of the rows of a training batch
_CHIPS_OF_WMT = 16  # that its batch is meant for; one device takes its share
_WORK, _WORKS = 256, (64, 1_024, 4_096)
_GRAPHS = "--xla_gpu_enable_command_buffer=+WHILE"
_SMALL = {"dim": 64, "ff_dim": 128, "heads": 4, "num_layers": 4, "encoder_layers": 2}
_SMALL["vocabulary_size"] = 500

Dtype = Literal["bfloat16", "float32"]
Form = Literal["keys_values", "states"]


def main(argv: Sequence[str]) -> int:
    """Measures as the command line says; returns the exit status."""
    options = flags.FlagValues()
    define_path(options, "output", "A file of JSON lines to write.")
    flags.DEFINE_integer("repetitions", 3, "Of each measurement.", 1, flag_values=options)
    flags.DEFINE_enum("only", None, ["greedy"], "Measure one part alone.", flag_values=options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Checks, measures while time is left, and writes each line as soon as it is known."""
    output = check_output(options.output)
    todo = parts(output, options.repetitions)
    if options.only:
        greedy = decoding("bfloat16", "states", 1, [_WORK], options.repetitions)
        todo = iter([("greedy", greedy)])
    for line in write_lines(output, _lines(todo)):
        if (line["table"], line["dtype"]) == ("correctness", "float32"):
            alike = min(value for key, value in line.items() if key.startswith("alike_"))
            if alike < line["sentences"]:
                raise UserError(
                    f"only {alike} of {line['sentences']} translations are equal with and without "
                    "gathered rows in float32: read the lines `correctness` before those of speed"
                )


def _lines(todo: Iterator[tuple[str, Iterator[Line]]]) -> Iterator[Line]:
    """Measures part by part while time is left; yields the lines."""
    started, setting = time.monotonic(), machine()
    for name, part in todo:
        minutes = (time.monotonic() - started) / 60
        if minutes > _MINUTES - 1:
            print(f"no time left for {name}", flush=True)
        else:
            print(f"{minutes:.1f} min: {name}", flush=True)
            yield from ({"benchmark": "gpu"} | line | setting for line in part)


def parts(output: Path, repetitions: int) -> Iterator[tuple[str, Iterator[Line]]]:
    """Yields the name and the lines of each part, the most important first."""
    yield "correctness in float32", check("float32", "keys_values")
    yield "correctness in bfloat16", check("bfloat16", "keys_values")
    yield "correctness in bfloat16, states", check("bfloat16", "states")
    speed = partial(decoding, repetitions=repetitions)
    yield "greedy", speed("bfloat16", "keys_values", 1, [_WORK])
    yield "greedy, states", speed("bfloat16", "states", 1, [_WORK])
    for module, share in ((iwslt14_de_en, 1), (wmt14_en_fr, _CHIPS_OF_WMT)):
        name, config = module.__name__.rpartition(".")[2], config_of(module)
        tokens = config.training.batch_tokens // share
        yield f"training step of {name}", training(name, config, tokens, repetitions)
    yield "greedy, other sentences in work", speed("bfloat16", "states", 1, _WORKS)
    yield "beam 5", speed("bfloat16", "states", 5, [_WORK])
    yield "float32", speed("float32", "keys_values", 1, [_WORK])
    if jax.devices()[0].platform == "gpu":
        yield "one graph", one_graph(output)


def platform(form: Form, **changes: Any) -> Platform:
    """Returns the device's sizes, with caches of this form and all sentences in one group."""
    own, projected = platform_of(jax.devices()[0]), float(form == "keys_values")
    return dataclasses.replace(own, projected=projected, window=_SENTENCES, **changes)


def check(dtype: Dtype, form: Form) -> Iterator[Line]:
    """Counts equal translations of 64 sentences between two ways to decode.

    One gathers rows and has few sentences in work; the other runs blocks on all rows and has all
    sentences in work.
    """
    task, rule = make_task(make_config(_SMALL, dtype), 64, 12, 16), drawn_exits(2.0, 4)
    line: Line = {"table": "correctness", "dtype": dtype, "caches": form, "sentences": 64}
    gathering, plain = platform(form, fewest_rows=4), platform(form, fewest_rows=1 << 20)
    with jax.default_matmul_precision("highest"):
        for beam in (1, 4):
            pairs = zip(
                task.search(rule, beam, 24, gathering).hypotheses,
                task.search(rule, beam, 64, plain).hypotheses,
                strict=True,
            )
            same = [(a.tokens, a.exits) == (b.tokens, b.exits) for a, b in pairs]
            line[f"alike_beam_{beam}"] = sum(same)
    yield line


def decoding(
    dtype: Dtype, form: Form, beam: int, works: Sequence[int], repetitions: int
) -> Iterator[Line]:
    """Times full depth, a cut and exits in turn, with equal sentences in work."""
    task = make_task(make_config(LARGE, dtype), max(works), 28, 32)
    for in_work in works:
        systems = list(ways(task.first(in_work), beam, in_work, platform=platform(form)))
        labels = {"table": f"{dtype}, {form}", "beam_size": beam}
        lines = measure(systems, labels, repetitions)
        print(format_lines(lines), flush=True)
        yield from (line | {"dtype": dtype, "caches": form} for line in lines)


def training(name: str, config: Config, tokens: int, repetitions: int) -> Iterator[Line]:
    """Times the training step of a config on one device, with this many tokens on each side."""
    size = config.data.vocabulary_size
    training = dataclasses.replace(config.training, sharding="replicated", microbatches=1)
    config = dataclasses.replace(config, training=training)
    model, optimizer = Transformer(config.model, size, size), make_optimizer(config)
    mesh = data_parallel_mesh(jax.devices()[:1])
    step = make_train_step(model, optimizer, config, mesh)
    state = TrainState.create(init_params(model, jax.random.key(0)), optimizer)
    state = jax.device_put(state, NamedSharding(mesh, WHOLE))
    ids = np.random.default_rng(0).integers(4, size, (tokens // _LENGTH, _LENGTH), np.int32)
    batch = jax.device_put(Batch(ids, ids), NamedSharding(mesh, ROWS))

    def one_step() -> None:
        nonlocal state
        state, metrics = step(state, batch, jax.random.key(0))
        assert np.isfinite(np.asarray(metrics["loss"].total))

    [(_, seconds)] = interleaved([one_step], 3 * repetitions, f"training step of {name}")
    line: Line = {"table": "training", "config": name, "dtype": config.model.dtype}
    line |= rate(ids.size, seconds)
    peak = peak_flops([jax.devices()[0].device_kind], config.model.dtype)
    if peak:
        lengths = np.full(len(ids), _LENGTH)
        per_token = step_flops(model, config, lengths, lengths) / ids.size
        line["mfu"] = round(per_token * line["tokens_per_second"] / peak, 3)
    yield line


def one_graph(output: Path) -> Iterator[Line]:
    """Times the search with its loops inside one CUDA graph, in a separate process."""
    part = output.with_name(output.name + ".graph")
    command = [sys.executable, "-m", "benchmarks.gpu", f"--output={part}", "--only=greedy"]
    environment = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {_GRAPHS}"}
    try:
        subprocess.run(command, env=os.environ | environment, timeout=180, check=True)
        yield from (line | {"xla_flags": _GRAPHS} for line in read_lines(part))
    except subprocess.SubprocessError as error:
        print(f"no line of one graph: {error}", flush=True)
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
