# SPDX-License-Identifier: Apache-2.0
"""train.py refuses a bad config or text with one line, before it trains."""

from pathlib import Path

import jax
import pytest

import train
from tests.scripts.calls import TINY, refuse


@pytest.mark.parametrize(
    "argument, message",
    [
        (
            "--config.training.stps=3",
            "unknown config key training.stps: did you mean training.steps?",
        ),
        (
            "--config.training.learning_rate=1",
            "learning_rate: did you mean optimizer.learning_rate?",
        ),
        ("--config.stepz=3", "unknown config key stepz: did you mean training.steps?"),
        ("--config.training.steps.x=3", "key training.steps.x: did you mean training.steps?"),
        ("--config.bogus=3", "key bogus: see configs/demo.py for its keys"),
        ("--config.training.steps", "--config.training.steps has no value: write --config.train"),
        (
            "--config.training.steps=many",
            "--config.training.steps=many: must be an integer, such as 20",
        ),
        (
            "--config.training.steps=5.0",
            "--config.training.steps=5.0: must be an integer, such as 20",
        ),
        (
            "--config.training.steps=1e4",
            "--config.training.steps=1e4: must be an integer, such as 20",
        ),
        ("--workdir=", "--workdir=: must be a path, such as runs/demo"),
        ("--config.training.steps=0", "training.steps is 0: must be 1 or more"),
        ("--config.model.encoder_heads=3", "must be a multiple of model.encoder_heads, 3"),
        ("--config.model.norm=mid", "model.norm is 'mid': must be one of post, pre"),
        ("--config.decoding.policy=fixed:7", "the depth must be one of 1, 2"),
        ("--config.decoding.shortlist=1", "shortlist is 1: with beam_size"),
        ("--config.decoding.policy=token_geometric:0.1,0.2", "needs 1 threshold"),
        ("--config.decoding.report_policies=('token_multinomial',)", "use one of fixed"),
        ("--config.decoding.report_policies=", "decoding.report_policies, () for none: policy is"),
        (
            "--config.decoding.report_policies=None",
            "must be a tuple of str, such as ('a', 'b'), or ()",
        ),
        ("--config.training.exit_samples=0", "training.exit_samples is 0: must be 1 or more"),
        ("--config.exit.oracle_smoothing=-1", "exit.oracle_smoothing is -1.0: must be 0 or more"),
        ("--config.training.mode=mixed", "training.mode is mixed: model.exits must be all and"),
        ("--config.training.initial_workdir=no/run", "where no model has been trained"),
        ("--config.data.source=text:no/such/folder", "no/such/folder is not a folder"),
        ("--config.data.vocabulary_size=90000", "data.vocabulary_size is 90000, more than"),
        ("surplus", "unexpected argument 'surplus'"),
        ("--surplus", "Unknown command line flag 'surplus'"),
    ],
)
def test_training_refuses_a_bad_config(argument: str, message: str, tmp_path: Path):
    refuse(message, train.main, *TINY, f"--workdir={tmp_path / 'run'}", argument)
    assert not (tmp_path / "run" / "config.json").exists()


def test_fsdp_on_one_device_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    arguments = [f"--workdir={tmp_path / 'run'}", "--config.training.sharding=fsdp"]
    refuse("training.sharding is fsdp and there is only one device", train.main, *TINY, *arguments)
    assert not (tmp_path / "run" / "config.json").exists()


def test_training_needs_a_config_and_a_workdir():
    refuse("--workdir is missing", train.main, *TINY)
    refuse("--config is missing", train.main, "--workdir=somewhere")
    none = ["--config=configs/none.py", "--workdir=somewhere"]
    refuse("--config=configs/none.py cannot be read", train.main, *none)
    refuse("none.py cannot be read", train.main, *none, "--config.training.steps=3")
    section = ["--config=configs/demo.py", "--workdir=somewhere", "--config.training=3"]
    refuse(
        "training=3: is a section: set one of its keys, --config.training.KEY", train.main, *section
    )


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A small folder of parallel text with all splits."""
    for split in ("train", "valid", "test"):
        for language in ("de", "en"):
            lines = "".join(f"{word} {language} {n}\n" for n in range(9) for word in ("ja", "nun"))
            (tmp_path / f"{split}.{language}").write_text(lines, encoding="utf-8")
    return tmp_path


def test_training_refuses_bad_text(text: Path):
    arguments = [*TINY, f"--config.data.source=text:{text}", "--config.data.vocabulary_size=24"]
    arguments.append(f"--workdir={text / 'run'}")
    good = (text / "valid.en").read_bytes()
    (text / "valid.en").write_bytes(good + b"one more\n")
    refuse("valid.de ends after line 18 while", train.main, *arguments)
    (text / "valid.en").write_bytes(b"")
    refuse("valid.en is empty", train.main, *arguments)
    (text / "valid.en").write_bytes(good.replace(b"nun en 4", b"\xff\xfe"))
    refuse("valid.en is not UTF-8 at line 10", train.main, *arguments)
    (text / "valid.en").unlink()
    refuse("valid.en is missing", train.main, *arguments)
    assert not (text / "run" / "config.json").exists()


def test_a_workdir_that_is_a_file_is_refused(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("here")
    refuse("is a file: give a folder", train.main, *TINY, f"--workdir={file}")
    assert file.read_text() == "here"
