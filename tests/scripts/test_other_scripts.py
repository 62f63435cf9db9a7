# SPDX-License-Identifier: Apache-2.0
"""The preparing and tuning scripts, and the choice of a checkpoint in all that read a model."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from dat_jax import distill
from dat_jax.data import prepare
from dat_jax.errors import UserError
from dat_jax.explore import __main__ as explore
from dat_jax.export import __main__ as export
from dat_jax.runs.workdir import Run
from dat_jax.tuning import __main__ as tuning
from tests.scripts.calls import TINY, refuse, succeed


def test_preparing_prints_the_splits(tmp_path: Path):
    result = succeed(prepare.main, *TINY, f"--workdir={tmp_path}")
    assert result.stdout.startswith("train: ")
    refuse("is missing", prepare.main, *TINY)


def test_preparing_refuses_a_workdir_that_is_a_file(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("here")
    refuse("file", prepare.main, *TINY, f"--workdir={file}")
    assert file.read_text() == "here"


def test_tuning_prints_the_policy_to_decode_with(trained: Path, tmp_path: Path):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    workdir, policy = f"--workdir={copy}", "--policy=token_geometric"
    options = ["--candidates=20", "--segment=0.25", "--beam_size=1", "--length_penalty=0"]
    result = succeed(tuning.main, workdir, policy, *options)
    assert "decode with --config.policy='tuned:token_geometric:AE<=" in result.stdout
    listed = succeed(tuning.main, workdir, "--policy=patience", "--beam_size=1")
    assert "decode with --config.policy='tuned:patience:AE<=" in listed.stdout
    refuse("--policy is missing", tuning.main, workdir)
    refuse("length_penalty=-1", tuning.main, workdir, policy, "--length_penalty=-1")
    kinds = "--policy=fixed: must be one of schedule, token_geometric, confidence, "
    refuse(kinds, tuning.main, workdir, "--policy=fixed")
    refuse("train a model into this workdir first", tuning.main, "--workdir=no", policy)


@pytest.mark.parametrize(
    ("script", "others"),
    [
        (tuning, ["--policy=confidence"]),
        (explore, []),
        (export, ["--format=safetensors"]),
        (distill, []),
    ],
    ids=["tuning", "explore", "export", "distill"],
)
def test_the_chosen_checkpoint_is_loaded(
    script: Any, others: list[str], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given = []

    def load(_: Run, *checkpoints: Any) -> None:
        given.append(checkpoints)
        raise UserError("that is enough")

    monkeypatch.setattr(Run, "load", load)
    shutil.copytree(trained, tmp_path / "run")
    asked = [f"--workdir={tmp_path / 'run'}", *others]
    asked += [f"--output={tmp_path / 'new'}"] if script is not tuning else []
    for chosen in ("--checkpoint=2", "--average_checkpoints=1"):
        refuse("that is enough", script.main, *asked, chosen)
    assert given == [(None, "2"), (1, None)]
