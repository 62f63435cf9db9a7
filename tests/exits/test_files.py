# SPDX-License-Identifier: Apache-2.0
"""Rules in a user's file: loaded once, named by their contents, refused in one line."""

from pathlib import Path

import jax
import pytest

from dat_jax.errors import UserError
from dat_jax.exits.files import load_policy
from dat_jax.exits.parsing import parse_policy
from tests.tiny import tiny_config

MODEL = tiny_config().model
RULES = '''
from __future__ import annotations

import dataclasses
import jax.numpy as jnp
from dat_jax.exits.questions import Need, Rule, Scope

LOADED = []


@dataclasses.dataclass(frozen=True)
class Half(Rule):
    """All tokens exit at the middle block, or deeper by some blocks."""

    depth: int

    @classmethod
    def parse(cls, argument: str, num_layers: int) -> Half:
        return cls(num_layers // 2 + int(argument or "0"))

    def before_token(self, token, plan):
        return plan._replace(exit_at=jnp.full_like(plan.exit_at, self.depth))


class Bare(Half):
    pass


@dataclasses.dataclass(frozen=True)
class Silent(Rule):
    pass


class Plain(Rule):
    def before_token(self, token, plan):
        return plan


@dataclasses.dataclass(frozen=True)
class Unasked(Rule):
    def after_classifier(self, classified, plan):
        return plan


@dataclasses.dataclass(frozen=True)
class Sentences(Rule):
    scope = Scope.SENTENCE

    def before_token(self, token, plan):
        return plan


@dataclasses.dataclass(frozen=True)
class NoArgument(Rule):
    def before_token(self, token, plan):
        return plan


@dataclasses.dataclass(frozen=True)
class Strange(NoArgument):
    @classmethod
    def parse(cls, argument, num_layers):
        return num_layers


@dataclasses.dataclass(frozen=True)
class Headed(NoArgument):
    exit_head = "token_geometric"


class NoRule:
    pass
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(RULES)
    return path


def refusal(text: str) -> str:
    """The one line with which a policy is refused."""
    with pytest.raises(UserError) as caught:
        load_policy(text, MODEL)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"policy is {text!r}: ")


def test_a_rule_is_read_with_its_argument(file: Path):
    policy = load_policy(f"{file}:Half:1", MODEL)
    assert policy.name == f"{file}:Half:1"
    assert repr(policy.rule) == "Half(depth=2)"
    assert repr(load_policy(f"{file}:Half", MODEL).rule) == "Half(depth=1)"
    assert jax.tree.leaves(policy.rule) == [2]


def test_a_file_is_loaded_once_a_path(file: Path, monkeypatch: pytest.MonkeyPatch):
    one = load_policy(f"{file}:Half:1", MODEL)
    monkeypatch.chdir(file.parent)
    (file.parent / "link.py").symlink_to(file)
    for text in ("mine.py:Half:1", "./mine.py:Half:1", "link.py:Half:1"):
        assert load_policy(text, MODEL).rule == one.rule  # of one class, so not loaded again


def test_a_label_tells_files_with_other_contents_apart(file: Path, tmp_path: Path):
    (tmp_path / "below").mkdir()
    same, other = tmp_path / "below" / "mine.py", tmp_path / "below" / "other.py"
    same.write_text(RULES)
    other.write_text(RULES + "\n# changed\n")
    labels = [load_policy(f"{path}:Half:1", MODEL).label for path in (file, same, other)]
    assert labels[0] == labels[1] != labels[2]
    assert labels[0].startswith("mine.Half:1-")
    assert labels[2].startswith("other.Half:1-")
    assert labels[0][-8:] != labels[2][-8:]
    assert load_policy(f"{file}:Half", MODEL).label.startswith("mine.Half-")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "must have the form FILE.py:CLASS[:ARGUMENT]"),
        (":", "must have the form FILE.py:CLASS[:ARGUMENT]"),
        (":Halv", "has no rule 'Halv': it has Half, Bare, Silent, Plain, Unasked, Sentences, "),
        (":NoRule", "has no rule 'NoRule': it has Half, "),
        (":LOADED", "has no rule 'LOADED': it has Half, "),
        (":Silent", "Silent answers no question: define before_sentence or before_token or "),
        (":Plain", "Plain needs the line @dataclasses.dataclass(frozen=True) above"),
        (":Unasked", "Unasked has after_classifier: put Need.CLASSIFIER into its needs"),
        (":Sentences", "Sentences has before_token, which is asked about tokens: its scope must"),
        (":NoArgument:3", "NoArgument takes no argument: define its method parse, or drop it"),
        (":Half:x", "Half.parse fails with ValueError at line 19: invalid literal for int()"),
        (":Strange", "Strange.parse returns int: must be the rule"),
        (":Headed", "this model has no exit head or exits for it"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(file: Path, name: str, complaint: str):
    assert complaint in refusal(f"{file}{name}")


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("", "has no rule 'Half': subclass dat_jax.exits.questions.Rule in it"),
        ("x = 1\nclass Half(", "fails with SyntaxError at line 2: "),
        ("import nowhere_to_be_found", "fails with ModuleNotFoundError at line 1: No module named"),
        ("def f():\n    return 1 / 0\nf()", "fails with ZeroDivisionError at line 2: division by"),
    ],
)
def test_a_file_that_fails_is_refused_with_its_line(tmp_path: Path, code: str, complaint: str):
    path = tmp_path / "bad.py"
    path.write_text(code)
    assert complaint in refusal(f"{path}:Half")


def test_a_missing_file_is_named(tmp_path: Path):
    assert refusal(f"{tmp_path}/none.py:Half") == (
        f"cannot read {tmp_path}/none.py: No such file or directory"
    )
    (tmp_path / "folder.py").mkdir()
    assert "Is a directory" in refusal(f"{tmp_path}/folder.py:Half")


def test_other_doors_run_no_file(tmp_path: Path):
    path = tmp_path / "never.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for text in (f"{path}:Half", str(path)):
        with pytest.raises(UserError, match="code in a file runs only if you name it yourself"):
            parse_policy(text, MODEL)
    assert not (tmp_path / "ran").exists()
