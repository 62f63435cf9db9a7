# SPDX-License-Identifier: Apache-2.0
"""Two processes equal one process, and both end cleanly when one fails."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import decode
import train
from dat_jax.checkpoints.folders import saved_steps
from tests.scripts.calls import PLAIN, TINY, check_refusal, refuse
from tests.several import (
    PATIENCE,
    PROCESSES,
    finish,
    flags,
    free_port,
    run_together,
    script,
    start,
    started,
)

TRAINING = [
    *TINY,
    PLAIN,
    "--config.model.dropout=0.0",
    "--config.model.exit_head=none",
    "--config.training.log_every=1",
    "--config.training.batch_tokens=256",  # 8 rows, all of them pairs
    "--config.training.bleu_every=4",
]
DEVICES = 2  # per process
# JAX's runtime reports the lost process or, during a collective, our own message does.
ENDED = ("unhealthy (stopped sending heartbeats):\n1\n", "if another process has ended, see")


def metrics(workdir: Path, steps: int) -> list[dict[str, float]]:
    """The metrics up to a step, except speed."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [
        {name: value for name, value in line.items() if "per_second" not in name}
        for line in lines
        if line["step"] <= steps
    ]


def assert_close(ours: Any, theirs: Any) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


def wait_for_step(workdir: Path, step: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while max(saved_steps(workdir / "checkpoints"), default=0) < step:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir trained by one process with as many devices as the two have together."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    train_alone(workdir, 4)
    return workdir


def train_alone(workdir: Path, steps: int) -> None:
    """Trains in one process up to this step."""
    arguments = [*TRAINING, f"--config.training.steps={steps}", f"--workdir={workdir}"]
    (end,) = finish([start(script("train"), *arguments, devices=PROCESSES * DEVICES)])
    assert end.status == 0, end.stderr


@pytest.mark.slow
def test_two_processes_train_and_evaluate_like_one(alone: Path, tmp_path: Path):
    workdir = tmp_path / "run"
    arguments = [*TRAINING, "--config.training.steps=4", f"--workdir={workdir}"]
    first, second = run_together(script("train"), *arguments)
    assert (first.status, second.status) == (0, 0), first.stderr + second.stderr
    assert "| fixed:2 " in first.stdout
    assert (second.stdout, second.stderr) == ("", "")
    assert_close(metrics(workdir, 4), metrics(alone, 4))
    assert "valid/bleu/exit_2" in metrics(workdir, 4)[-1]
    ours, theirs = (
        [json.loads(line) for line in (run / "evaluation.jsonl").read_text().splitlines()]
        for run in (workdir, alone)
    )
    same = ("policy", "chrf", "exit_histogram", "sentences", "rows_per_stage", "tokens")
    for key in same:
        assert [line[key] for line in ours] == [line[key] for line in theirs]
    names = [
        {str(path.relative_to(run)) for path in run.rglob("*.json")} for run in (workdir, alone)
    ]
    assert names[0] == names[1]


@pytest.mark.slow
def test_if_one_process_is_killed_the_other_ends_and_one_can_resume(alone: Path, tmp_path: Path):
    workdir = tmp_path / "run"
    arguments = [*TRAINING, "--config.training.steps=100000", f"--workdir={workdir}"]
    with started(script("train"), *arguments) as processes:
        wait_for_step(workdir, 4)
        processes[1].kill()
        first, second = finish(processes)
    assert second.status == -signal.SIGKILL
    assert first.status not in (0, None)
    assert any(line in first.stderr for line in ENDED)
    assert_close(metrics(workdir, 4), metrics(alone, 4)[:4])
    last = max(saved_steps(workdir / "checkpoints"))
    train_alone(workdir, last + 1)
    assert [line["step"] for line in metrics(workdir, last + 1)][-2:] == [last + 1] * 2


@pytest.mark.slow
def test_if_one_process_cannot_write_a_checkpoint_both_end(tmp_path: Path):
    workdir = tmp_path / "run"
    program = script("train")
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))\n"
    arguments = [
        *TRAINING,
        "--config.training.steps=100000",
        "--config.training.sharding=fsdp",
        f"--workdir={workdir}",
    ]
    with started(program, *arguments, second=limit + program) as processes:
        first, second = finish(processes)
    check_refusal(second, "a checkpoint cannot be written, File too large: fix that and run again")
    assert first.status not in (0, None)
    assert any(line in first.stderr for line in ENDED)
    assert "Traceback" not in first.stderr
    assert saved_steps(workdir / "checkpoints") == []


@pytest.mark.slow
def test_both_processes_stop_after_the_same_step(tmp_path: Path):
    workdir = tmp_path / "run"
    arguments = [*TRAINING, "--config.training.steps=100000", f"--workdir={workdir}"]
    with started(script("train"), *arguments) as processes:
        wait_for_step(workdir, 2)
        processes[1].send_signal(signal.SIGTERM)
        ends = finish(processes)
    step = max(saved_steps(workdir / "checkpoints"))
    for end in ends:
        assert end.status == 0, end.stderr
        assert f"stopped by SIGTERM at step {step:,}, which is saved" in end.stderr


@pytest.mark.slow
def test_two_processes_decode_like_one(trained: Path, tmp_path: Path):
    text = tmp_path / "text"
    text.write_text(
        "".join(f"{line}\n" for line in ["acht", "", "am dritten Mai", "elf", "neun"] * 3)
    )
    arguments = [
        f"--workdir={trained}",
        f"--config.input={text}",
        "--config.policy=token_geometric",
    ]
    outputs = [f"--config.output={tmp_path / name}" for name in ("one", "two")]
    ends = finish([start(script("decode"), *arguments, outputs[0])])
    ends += run_together(script("decode", window=3), *arguments, outputs[1])
    for end in ends:
        assert end.status == 0, end.stderr
    texts = [(tmp_path / folder / "hypotheses.txt").read_text() for folder in ("one", "two")]
    assert texts[0].count("\n") == 15
    assert texts[0] == texts[1]
    rows = [
        list(map(json.loads, (tmp_path / folder / "exits.jsonl").read_text().splitlines()))
        for folder in ("one", "two")
    ]
    for one, two in zip(*rows, strict=True):  # sums round differently in other windows
        assert (one["tokens"], one["exits"]) == (two["tokens"], two["exits"])
        assert one["score"] == pytest.approx(two["score"], rel=1e-5)
    one, two = (json.loads((tmp_path / f / "summary.json").read_text()) for f in ("one", "two"))
    for key in ("average_exit", "tokens", "sentences"):
        assert one[key] == two[key]


@pytest.mark.slow
def test_slurm_processes_refuse_a_folder_that_is_not_shared(tmp_path: Path):
    port = free_port(range(61_440, 65_536))
    variables = {
        "SLURM_JOB_ID": str(port - 61_440),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
    }
    ends = finish(
        [
            start(
                script("train"),
                *TRAINING,
                f"--workdir={tmp_path / str(number)}",
                variables=variables | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)},
            )
            for number in range(PROCESSES)
        ]
    )
    for number, end in enumerate(ends):
        check_refusal(end, f"{tmp_path / str(number)} is another folder in process 1")
    assert list(tmp_path.iterdir()) == []


def test_input_that_only_one_process_can_read_is_refused(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(decode, "count", lambda: 2)
    os.mkfifo(pipe := tmp_path / "pipe")
    for name in ("-", pipe):
        given = [f"--workdir={trained}", "--config.policy=fixed:1", f"--config.input={name}"]
        with open(os.open(pipe, os.O_RDWR)):  # so that opening does not block
            refuse(f"input is {name}, which only one process can read", decode.main, *given)


@pytest.mark.slow
def test_waiting_for_missing_processes_times_out(tmp_path: Path):
    arguments = [*TRAINING, f"--workdir={tmp_path / 'run'}", *flags(1, free_port())]
    (end,) = finish([start(script("train", connecting=2), *arguments)])
    check_refusal(end, "not all processes were there within 2 s")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("main", [train.main, decode.main])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--num_processes=2"], "go together: give all three"),
        (["--coordinator=localhost:1", "--process_id=0"], "go together: give all three"),
        (flags(2, 1), "--process_id is 2 and --num_processes 2: number the processes from 0"),
        (flags(-1, 1), "--process_id is -1"),
        (["--coordinator=localhost", *flags(0, 1)[1:]], "localhost is not HOST:PORT"),
        (["--coordinator=localhost:70000", *flags(0, 1)[1:]], "70000 is not HOST:PORT"),
        (["--process_id=first"], "--process_id=first: must be"),
    ],
)
def test_impossible_flags_are_refused(main, given: list[str], message: str, tmp_path: Path):
    others = TRAINING if main is train.main else []
    refuse(message, main, *others, f"--workdir={tmp_path / 'run'}", *given)
    assert not (tmp_path / "run").exists()
