# SPDX-License-Identifier: Apache-2.0
"""Tuned policies: their names, the fronts in the workdir, and one-line errors."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from dat_jax.config import DecodingConfig
from dat_jax.decoding.trained import TrainedModel
from dat_jax.errors import UserError
from dat_jax.exits.parsing import Policy
from dat_jax.exits.questions import Rule
from dat_jax.exits.rules import Confidence, Fixed, Patience, Schedule, TokenGeometric
from dat_jax.runs.workdir import Run
from dat_jax.tuning.fronts import (
    describe_misfit,
    front_of,
    resolve_policy,
    save_front,
    shown_budget,
    tuned_kinds,
)
from tests.tiny import tiny_config, tiny_model

MODEL = tiny_config(model={"exit_head": "token_geometric"}).model
WITHOUT_HEAD = tiny_config().model


def point(policy: str, average_exit: float, bleu: float) -> dict[str, Any]:
    kind = policy.partition(":")[0]
    return {"kind": kind, "policy": policy, "average_exit": average_exit, "bleu": bleu}


@pytest.fixture
def workdir(tmp_path: Path) -> Run:
    """Two fronts: confidence is better above an average exit of 2, token_geometric below."""
    run = Run(tmp_path)
    save_front(
        run,
        "confidence",
        [point("confidence:0.1,0.2", 1.5, 20.0), point("confidence:0.3,0.4", 2.5, 30.0)],
    )
    run = Run(tmp_path)
    save_front(
        run,
        "token_geometric",
        [
            point("token_geometric:0.5,0.6", 1.2, 25.0),
            point("token_geometric:0.7,0.8", 2.4, 28.0),
        ],
    )
    return run


def trained(*steps: int) -> TrainedModel:
    """A model with a head and no parameters, which tuned policies do not need."""
    config = tiny_config(model={"exit_head": "token_geometric"})
    return TrainedModel(config, tiny_model(exit_head="token_geometric"), {}, steps=steps)


def tuned_with(decoding: DecodingConfig, *steps: int) -> dict[str, Any]:
    """What a summary says of the settings and of the model's checkpoints."""
    names = ("beam_size", "length_penalty", "shortlist", "trailing_gap")
    settings = {name: getattr(decoding, name) for name in names}
    return settings | {"checkpoint_step": steps[0], "averaged_checkpoints": len(steps)}


def test_a_front_of_another_model_or_other_settings_does_not_count(tmp_path: Path):
    run, decoding = Run(tmp_path), tiny_config(decoding={"beam_size": 4}).decoding
    assert front_of(run, "confidence", trained(300), decoding) == []
    front = [point("confidence:0.1,0.2", 1.5, 20.0) | tuned_with(decoding, 300, 200)]
    save_front(run, "confidence", front)
    assert front_of(run, "confidence", trained(300, 200), decoding) == front
    assert front_of(run, "confidence", trained(300), decoding) == []
    assert front_of(run, "confidence", trained(400, 300), decoding) == []
    changes = {"beam_size": 5}, {"length_penalty": 0.5}, {"shortlist": 16}, {"trailing_gap": 1.0}
    for change in changes:
        changed = dataclasses.replace(decoding, **change)
        assert front_of(run, "confidence", trained(300, 200), changed) == []


def test_a_shortlist_does_not_matter_to_rules_that_do_not_classify(tmp_path: Path):
    run, decoding = Run(tmp_path), tiny_config().decoding
    front = [point("token_geometric:0.1,0.2", 1.5, 20.0) | tuned_with(decoding, 300)]
    save_front(run, "token_geometric", front)
    with_shortlist = dataclasses.replace(decoding, shortlist=16)
    assert front_of(run, "token_geometric", trained(300), with_shortlist) == front
    assert describe_misfit("tuned:AE<=2", run, trained(300), with_shortlist) is None
    message = describe_misfit("tuned:AE<=2", run, trained(400), with_shortlist)
    assert message is not None and message.endswith("--shortlist=0 --trailing_gap=0.0")


def test_a_misfit_lists_settings_that_differ_from_tuning(tmp_path: Path):
    run = Run(tmp_path / "my run")
    run.path.mkdir()
    decoding = tiny_config(decoding={"beam_size": 4, "length_penalty": 0.6}).decoding
    tuned = point("confidence:0.1,0.2", 1.5, 20.0) | tuned_with(decoding, 300, 200)
    save_front(run, "confidence", [tuned])

    def misfit(model: TrainedModel, text: str = "tuned:AE<=2", **changes: Any) -> str | None:
        return describe_misfit(text, run, model, dataclasses.replace(decoding, **changes))

    assert misfit(trained(300, 200)) is None
    assert misfit(trained(400), "confidence:0.5") is None
    message = misfit(trained(400, 300), beam_size=1)
    assert message is not None
    assert "tuned at checkpoint_step 300 (now 400), beam_size 4 (now 1): tune it again" in message
    command = "python -m dat_jax.tuning --workdir='{}' --policy=confidence --beam_size=1"
    assert command.format(run.path) in message
    assert "averaged_checkpoints 2 (now 1)" in str(misfit(trained(300)))
    assert "shortlist 0 (now 16)" in str(misfit(trained(300, 200), shortlist=16))
    assert "trailing_gap 0.0 (now 1.0)" in str(misfit(trained(300, 200), trailing_gap=1.0))
    assert "length_penalty 0.6 (now 1.0)" in str(misfit(trained(300, 200), length_penalty=1.0))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("tuned:AE<=3", Confidence((0.3, 0.4))),
        ("tuned:AE<=2.5", Confidence((0.3, 0.4))),
        ("tuned:AE<=2.49", TokenGeometric((0.7, 0.8))),
        ("tuned:AE<=2", TokenGeometric((0.5, 0.6))),
        ("tuned:confidence:AE<=2", Confidence((0.1, 0.2))),
        ("tuned:token_geometric:AE<=9.5", TokenGeometric((0.7, 0.8))),
        ("fixed:2", Fixed(2)),
    ],
)
def test_the_best_point_within_the_budget_is_used(workdir: Run, text: str, rule: Rule):
    name = text if text.startswith("tuned") else str(rule)
    assert resolve_policy(text, MODEL, workdir) == Policy(name, rule)


def test_rules_that_are_listed_are_found_again(tmp_path: Path):
    run = Run(tmp_path)
    save_front(run, "patience", [point("patience:1", 1.0, 20.0), point("patience:2", 2.5, 30.0)])
    save_front(run, "schedule", [point("schedule:3-2", 2.6, 31.0)])
    assert resolve_policy("tuned:AE<=2.5", MODEL, run).rule == Patience(2)
    assert resolve_policy("tuned:AE<=3", MODEL, run).rule == Schedule(3, 2)
    assert resolve_policy("tuned:patience:AE<=3", MODEL, run).rule == Patience(2)


def test_a_model_without_a_head_uses_a_supported_rule(workdir: Run):
    assert resolve_policy("tuned:AE<=2", WITHOUT_HEAD, workdir).rule == Confidence((0.1, 0.2))
    assert tuned_kinds("tuned:AE<=2", WITHOUT_HEAD) == (
        "schedule",
        "confidence",
        "margin",
        "similarity",
        "patience",
    )
    assert tuned_kinds("fixed:1", WITHOUT_HEAD) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tuned", "must have the form tuned[:KIND]:AE<=DEPTH"),
        ("tuned:AE<2", "must have the form tuned[:KIND]:AE<=DEPTH"),
        ("tuned:AE<=", "must have the form tuned[:KIND]:AE<=DEPTH"),
        (
            "tuned:fixed:AE<=2",
            "with KIND schedule|token_geometric|confidence|margin|similarity|patience",
        ),
        ("tuned:AE<=1.1", "the lowest tuned average exit is 1.20"),
        ("tuned:confidence:AE<=1.4", "the lowest tuned average exit is 1.50"),
    ],
)
def test_impossible_tuned_policies_are_refused(workdir: Run, text: str, message: str):
    with pytest.raises(UserError) as caught:
        resolve_policy(text, MODEL, workdir)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("average", [1.2, 2.454, 2.4500001, 2.45, 3.0])
def test_a_printed_budget_can_be_requested(tmp_path: Path, average: float):
    run, best = Run(tmp_path), point("confidence:0.1,0.2", average, 20.0)
    save_front(run, "confidence", [best])
    resolved = resolve_policy(f"tuned:AE<={shown_budget(average)}", MODEL, run)
    assert resolved.rule == Confidence((0.1, 0.2))
    assert float(shown_budget(average)) - average < 0.0101


@pytest.mark.parametrize("text", ["{", "[{", "3", "[3]", '[{"bleu": 1}]'])
def test_a_damaged_front_is_refused(tmp_path: Path, text: str):
    run = Run(tmp_path)
    save_front(run, "confidence", [])
    (run.tuned / "confidence.json").write_text(text)
    with pytest.raises(UserError, match=r"confidence\.json is damaged: tune again"):
        resolve_policy("tuned:AE<=2", MODEL, run)


def test_a_rule_without_its_head_is_refused(workdir: Run):
    with pytest.raises(UserError, match="use one of fixed"):
        resolve_policy("tuned:token_geometric:AE<=2", WITHOUT_HEAD, workdir)


@pytest.mark.parametrize("text", ["tuned:AE<=2", "tuned:confidence:AE<=2"])
def test_a_model_with_one_exit_has_nothing_to_tune(workdir: Run, text: str):
    one_exit = tiny_config(model={"exits": "last"}).model
    with pytest.raises(UserError, match=r"use one of fixed\[:DEPTH\]$"):
        resolve_policy(text, one_exit, workdir)


def test_the_error_before_tuning_names_the_command(tmp_path: Path):
    with pytest.raises(UserError, match=r"run python -m dat_jax.tuning .* --policy=confidence$"):
        resolve_policy("tuned:confidence:AE<=2", MODEL, Run(tmp_path))
