# SPDX-License-Identifier: Apache-2.0
"""Training that is killed at a random moment, or asked to stop, resumes exactly."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from dat_jax.checkpoints.read import average
from dat_jax.model.transformer import Transformer, init_params
from tests.tiny import tiny_config

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = """
import functools, sys
from pathlib import Path
from dat_jax.errors import Stopped
from dat_jax.model.transformer import init_params
from dat_jax.training.loop import train
from dat_jax.runs.workdir import Run, make_model
from tests.tiny import tiny_config

config = tiny_config(
    data={"source": "generated:60", "vocabulary_size": 100, "max_length": 64},
    model={"decoder_layers": 1, "encoder_layers": 1, "dropout": 0.1},
    training={
        "steps": 200, "batch_tokens": 512, "num_shapes": 1, "log_every": 3,
        "validate_every": 200, "checkpoint_every": 5, "keep_checkpoints": 2,
    },
)
run = Run(Path(sys.argv[1]))
dataset = Run(Path(sys.argv[2])).prepare(config)
model = make_model(config, dataset.vocabularies)
try:
    with run.writing():
        train(config, model, dataset, run.training_files, functools.partial(init_params, model))
except Stopped as stopped:
    sys.exit(f"status {stopped.status}: {stopped}")
"""
KILLS = 8


def start(workdir: Path) -> subprocess.Popen[bytes]:
    """Starts or resumes training in a separate process."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, "-c", PROGRAM, str(workdir), str(workdir.parent / "data")]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Waits for a process; returns its exit status and its last line of errors."""
    errors = process.communicate()[1].decode()
    return process.returncode, errors.strip().rpartition("\n")[2]


def wait_for_a_step(process: subprocess.Popen[bytes], workdir: Path) -> None:
    """Waits until a metric is written or the process ends."""
    file, before = workdir / "metrics.jsonl", size(workdir)
    while process.poll() is None and (not file.exists() or size(workdir) == before):
        time.sleep(0.002)


def size(workdir: Path) -> int:
    file = workdir / "metrics.jsonl"
    return file.stat().st_size if file.exists() else 0


def metrics(workdir: Path) -> list[dict[str, float]]:
    """All metrics except speed."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if "per_second" not in name}
        for line in lines
    ]


def names(workdir: Path) -> set[str]:
    """The names of a run's files and checkpoints."""
    files = {str(path.relative_to(workdir)) for path in workdir.glob("*")}
    return files | {path.name for path in (workdir / "checkpoints").iterdir()}


def params(workdir: Path) -> list[np.ndarray]:
    """The parameters of the last checkpoint."""
    model = Transformer(
        tiny_config(model={"decoder_layers": 1, "encoder_layers": 1}).model, 100, 100
    )
    like = init_params(model, jax.random.key(0))
    last = average(workdir / "checkpoints", like, at_most=1)
    return list(map(np.asarray, jax.tree.leaves(last.params)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    assert finish(start(workdir))[0] == 0
    return workdir


@pytest.mark.slow
def test_a_run_killed_many_times_ends_with_identical_parameters(whole: Path):
    workdir, chance = whole.parent / "killed", random.Random(0)
    for _ in range(KILLS):
        process = start(workdir)
        wait_for_a_step(process, workdir)
        time.sleep(chance.uniform(0, 0.15))
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL
    assert finish(start(workdir))[0] == 0
    assert metrics(workdir) == metrics(whole)
    assert names(workdir) == names(whole)
    for ours, theirs in zip(params(workdir), params(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_a_stopped_run_saves_and_resumes_exactly(whole: Path):
    workdir = whole.parent / "asked"
    for asked, status in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        process = start(workdir)
        wait_for_a_step(process, workdir)
        process.send_signal(asked)
        _, said = finish(process)
        step = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
        expected = f"status {status}: stopped by {asked.name} at step {step}, which is saved: run "
        assert said.startswith(expected)
    assert finish(start(workdir))[0] == 0
    assert names(workdir) == names(whole)
    for ours, theirs in zip(params(workdir), params(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
