# SPDX-License-Identifier: Apache-2.0
"""python -m dat_jax.info describes a workdir and changes nothing there."""

import json
import re
import shutil
from pathlib import Path

import jax
import pytest

from dat_jax import info
from dat_jax.config import Config
from dat_jax.runs.workdir import Run
from dat_jax.tuning.fronts import save_front
from tests.scripts.calls import files, refuse, succeed

TITLES = [
    "settings that differ from the defaults",
    "progress",
    "checkpoints",
    "parameters",
    "exits",
    "tuned thresholds",
    "last scores",
    "data",
]


def parts(printed: str) -> dict[str, list[str]]:
    """The lines below each title."""
    found: dict[str, list[str]] = {}
    for line in printed.splitlines():
        if line.startswith("  "):
            found[title].append(line[2:])
        else:
            title = line.removesuffix(":")
            found[title] = []
    return found


def test_a_trained_run_is_described(trained: Path, monkeypatch: pytest.MonkeyPatch):
    params = Run(trained).load(1).params
    monkeypatch.setattr("dat_jax.runs.workdir.average", None)  # no parameters are loaded
    before = files(trained)
    told = parts(succeed(info.main, f"--workdir={trained}").stdout)
    assert files(trained) == before
    assert list(told) == TITLES
    settings = told["settings that differ from the defaults"]
    assert "model.decoder_layers = 2 (default 6)" in settings
    assert not any(line.startswith("training.seed") for line in settings)
    assert told["progress"][0] == "saved at step 4 of 4"
    assert re.fullmatch(r"train/loss [\d.]+ at step 4", told["progress"][1])
    for step in (2, 4):
        folder = Run(trained).checkpoints / f"{step:08}"
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        assert f"step {step}: {size / 1e6:,.1f} MB" in told["checkpoints"]
    assert re.fullmatch(r"best: step 4, valid/loss [\d.]+", told["checkpoints"][2])
    counts = [line.split() for line in told["parameters"]]
    assert {part: int(count.replace(",", "")) for count, part, *_ in counts[:-1]} == {
        part: sum(leaf.size for leaf in jax.tree.leaves(tree)) for part, tree in params.items()
    }
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert counts[-1] == [f"{total:,}", "in", "all"]
    assert told["exits"][:2] == [
        "after block 1, 2 of 2, classifiers: shared",
        "exit head: token_geometric",
    ]
    assert any("confidence:" in line for line in told["tuned thresholds"])
    assert any("token_geometric:" in line for line in told["tuned thresholds"])
    assert told["last scores"][0] == "test, of the checkpoint at step 4"
    assert any(line.startswith("| fixed:2 ") for line in told["last scores"])
    assert told["data"][2:] == Run(trained).dataset().report().splitlines()
    again = succeed(info.main, f"--workdir={trained}", "--config=configs/demo.py").stdout
    assert len(parts(again)["settings that differ from the defaults"]) < len(settings)


def test_a_run_that_has_just_begun_is_described(trained: Path, tmp_path: Path):
    """Its config is written, and half a line of its metrics."""
    shutil.copy(trained / "config.json", tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 2, "train/loss": 3.5}\n{"step": 3, "tra')
    told = parts(succeed(info.main, f"--workdir={tmp_path}").stdout)
    assert told["progress"] == ["saved at step 0 of 4", "train/loss 3.5 at step 2"]
    assert told["checkpoints"] == [f"none in {tmp_path / 'checkpoints'}"]
    assert told["parameters"] == ["unknown before the data is prepared"]
    assert told["data"] == ["not prepared yet"]
    assert told["tuned thresholds"][0].startswith("none: python -m dat_jax.tuning --workdir=")
    assert told["last scores"][0].startswith("none: ")


def test_what_is_no_run_is_refused_in_one_line(trained: Path, tmp_path: Path):
    refuse("does not exist: train a model into", info.main, f"--workdir={tmp_path / 'new'}")
    file = tmp_path / "file"
    file.write_text("")
    refuse("Not a directory: fix that, or give another --workdir", info.main, f"--workdir={file}")
    shutil.copy(trained / "config.json", tmp_path)
    (tmp_path / "evaluation.jsonl").write_text('{"policy": "fixed"}\n')
    first = "settings that differ"
    refuse("evaluation.jsonl is damaged: run", info.main, f"--workdir={tmp_path}", printed=first)
    (tmp_path / "evaluation.jsonl").unlink()
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "confidence.json").write_text("[]]")
    refuse(
        "confidence.json is damaged: tune again", info.main, f"--workdir={tmp_path}", printed=first
    )


def test_settings_are_compared_with_any_config(tmp_path: Path):
    usual = tmp_path / "config.py"
    usual.write_text(
        "from configs import base\n"
        "def get_config():\n"
        "    config = base.get_config()\n"
        "    config.training.seed = 7\n"
        "    return config\n"
    )
    from configs import base

    Config.from_dict(base.get_config().to_dict()).save(tmp_path / "config.json")
    save_front(Run(tmp_path), "confidence", [])
    assert json.loads((tmp_path / "tuned" / "confidence.json").read_text()) == []
    lines = parts(succeed(info.main, f"--workdir={tmp_path}", f"--config={usual}").stdout)
    assert lines["settings that differ from the defaults"] == ["training.seed = 0 (default 7)"]
    lines = parts(succeed(info.main, f"--workdir={tmp_path}").stdout)
    assert lines["settings that differ from the defaults"] == ["none"]
