# SPDX-License-Identifier: Apache-2.0
"""decode.py with a rule in a user's file, which no workdir may name."""

import json
import shutil
from pathlib import Path

import pytest

import dat_jax
import decode
import train
from dat_jax.errors import UserError
from tests.scripts.calls import TINY, call, files, refuse, succeed

RULES = """
import dataclasses
import jax.numpy as jnp
from dat_jax.exits.questions import Rule

@dataclasses.dataclass(frozen=True)
class Always(Rule):
    depth: int

    @classmethod
    def parse(cls, argument, num_layers):
        return cls(int(argument))

    def before_token(self, token, plan):
        return plan._replace(exit_at=jnp.full_like(plan.exit_at, self.depth))

@dataclasses.dataclass(frozen=True)
class Broken(Rule):
    def after_block(self, block, plan):
        return plan._replace(exit_at=jnp.argmax(block.after, axis=0))
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(RULES)
    return path


def test_decoding_with_a_rule_of_a_file(trained: Path, rules: Path, tmp_path: Path):
    trained = shutil.copytree(trained, tmp_path / "workdir")
    policy = f"{rules}:Always:1"
    finished = succeed(decode.main, f"--workdir={trained}", f"--config.policy={policy}")
    (folder,) = (trained / "decode").glob("test-mine.Always-1-*-beam*")
    assert f"wrote {folder}/" in finished.stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["policy"] == policy
    assert summary["average_exit"] == 1
    again = [f"--workdir={trained}", f"--config.policy={policy}", "--config.resume=true"]
    assert "is finished" in succeed(decode.main, *again).stderr

    changed = rules.parent / "below" / "mine.py"
    changed.parent.mkdir()
    changed.write_text(RULES + "# another version\n")
    succeed(decode.main, f"--workdir={trained}", f"--config.policy={changed}:Always:1")
    assert len(list((trained / "decode").glob("test-mine.Always-1-*"))) == 2


def test_a_rule_that_cannot_be_is_refused_before_work(trained: Path, rules: Path):
    before = files(trained)
    for policy, message in {
        f"{rules}:None": "has no rule 'None': it has Always, Broken",
        f"{rules.parent}/no.py:Always": "no.py: No such file or directory",
        f"{rules}:Broken": "after_block answers with exits of int32[8]: must be int32[5]",
    }.items():
        refuse(message, decode.main, f"--workdir={trained}", f"--config.policy={policy}")
    assert files(trained) == before


def test_no_workdir_runs_code(trained: Path, rules: Path, tmp_path: Path):
    rules.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    policy, message = f"{rules}:Always:1", "code in a file runs only if you name it yourself"
    workdir = tmp_path / "workdir"
    shutil.copytree(trained, workdir)
    text = (workdir / "config.json").read_text()
    config = json.loads(text)
    given = config["decoding"]["policy"]
    assert text.count(f'"policy": "{given}"') == 1
    planted = text.replace(f'"policy": "{given}"', f'"policy": {json.dumps(policy)}')
    (workdir / "config.json").write_text(planted)
    refuse(message, decode.main, f"--workdir={workdir}")
    with pytest.raises(UserError, match=message):
        dat_jax.load(workdir).translate(["acht"])
    (workdir / "config.json").write_text(text)
    tuned = workdir / "tuned" / "confidence.json"
    front = json.loads(tuned.read_text())
    tuned.write_text(json.dumps([point | {"policy": policy} for point in front]))
    refuse(message, decode.main, f"--workdir={workdir}", "--config.policy=tuned:confidence:AE<=9")
    new = [*TINY, f"--workdir={tmp_path / 'new'}", f"--config.decoding.policy={policy}"]
    assert message in call(train.main, *new).stderr
    assert not (tmp_path / "ran").exists()
