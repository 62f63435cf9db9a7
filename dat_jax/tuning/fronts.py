# SPDX-License-Identifier: Apache-2.0
"""Fronts of tuned policies in a workdir, and the policies `tuned:...` that choose from them.

A front is a list of summaries, of which `policy` names the rule; none is better at fewer FLOPs. Of
these, `tuned:AE<=2.5` is the one with the best BLEU on validation data whose average exit there is
at most 2.5; `tuned:confidence:AE<=2.5` considers only that kind of rule.
"""

import json
import math
import re
import shlex
from collections.abc import Sequence
from typing import Any

from dat_jax.config import DecodingConfig, ModelConfig
from dat_jax.decoding.rule_settings import suited
from dat_jax.decoding.trained import TrainedModel
from dat_jax.errors import UserError
from dat_jax.exits.files import load_policy
from dat_jax.exits.parsing import FilePlace, Policy, available_rules, find_rule, parse_policy
from dat_jax.exits.rules import RULES
from dat_jax.exits.thresholds import Thresholded
from dat_jax.runs.workdir import Run
from dat_jax.storage.files import write_text

KINDS = tuple(
    rule.kind for rule in RULES if issubclass(rule, Thresholded) or rule.choices(num_layers=1)
)
"""The kinds of rule that can be tuned: those with thresholds, and those that can be listed."""

_FORM = "tuned[:KIND]:AE<=DEPTH"


def save_front(run: Run, kind: str, front: list[dict[str, Any]]) -> None:
    """Saves the summaries of tuned policies, cheapest first."""
    run.tuned.mkdir(exist_ok=True)
    write_text(run.tuned / f"{kind}.json", json.dumps(front, indent=2) + "\n")


def load_front(run: Run, kind: str) -> list[dict[str, Any]]:
    """Loads the summaries that `save_front` saved; none if nothing has been tuned.

    Raises:
        UserError: the file is damaged.
    """
    path = run.tuned / f"{kind}.json"
    if not path.exists():
        return []
    try:
        front = json.loads(path.read_text(encoding="utf-8"))
        return [{"policy": str(point["policy"])} | point for point in front]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path} is damaged: tune again") from None


def front_of(
    run: Run, kind: str, trained: TrainedModel, decoding: DecodingConfig
) -> list[dict[str, Any]]:
    """Returns what `load_front` does if it was tuned for this model and these settings; else none.

    Raises:
        UserError: the file is damaged.
    """
    front = load_front(run, kind)
    if not front:
        return []
    decoding = _suited(front[0], trained, decoding)
    return [] if _differences(front[0], trained, decoding) else front


def tuned_kinds(text: str, config: ModelConfig) -> tuple[str, ...]:
    """Returns the kinds of rule that a tuned policy may have; none if `text` is not a tuned one.

    Raises:
        UserError: `text` is not a policy, or not one that the model can decode with.
    """
    if not _is_tuned(text):
        parse_policy(text, config)
        return ()
    kind, _ = _read(text)
    kinds = (kind,) if kind else KINDS
    usable = {rule.kind for rule in available_rules(config)}
    available = tuple(k for k in kinds if k in usable)
    if not available:
        find_rule(kinds[0], text, config)  # raises, and lists what the model can do
    return available


def resolve_policy(text: str, config: ModelConfig, run: Run) -> Policy:
    """Parses a policy like `parse_policy`, or chooses one that was tuned for the model of `run`.

    Raises:
        UserError: there is no such policy, the model cannot decode with it, nothing has been tuned,
            or nothing within that average exit.
    """
    kinds = tuned_kinds(text, config)
    if not kinds:
        return parse_policy(text, config)
    best = _best(text, kinds, run)
    return Policy(text, parse_policy(best["policy"], config).rule)


def policy_of_user(text: str, config: ModelConfig, run: Run) -> Policy:
    """Like `resolve_policy`, for a policy that the user names, which may be a rule in a file.

    Raises:
        UserError: also if that file or its class is not as it must be.
    """
    return load_policy(text, config) if FilePlace.of(text) else resolve_policy(text, config, run)


def describe_misfit(
    text: str, run: Run, trained: TrainedModel, decoding: DecodingConfig
) -> str | None:
    """Returns a warning if a tuned policy is used with other settings than it was tuned with.

    Returns None if the settings are the same or the policy is not a tuned one.

    Raises:
        UserError: as for `resolve_policy`.
    """
    if not _is_tuned(text):
        return None
    best = _best(text, tuned_kinds(text, trained.config.model), run)
    decoding = _suited(best, trained, decoding)
    differences = _differences(best, trained, decoding)
    if not differences:
        return None
    model = f"--average_checkpoints={len(trained.steps)}"
    if len(trained.steps) == 1:
        model = f"--checkpoint={trained.steps[0]}"
    return (
        f"{text} was tuned at {', '.join(differences)}: tune it again with "
        f"python -m dat_jax.tuning --workdir={shlex.quote(str(run.path))} --policy={best['kind']} "
        f"--beam_size={decoding.beam_size} {model} "
        f"--length_penalty={decoding.length_penalty} --shortlist={decoding.shortlist} "
        f"--trailing_gap={decoding.trailing_gap}"
    )


def shown_budget(average_exit: float) -> str:
    """Formats an average exit as a budget, rounded up so that it lies within."""
    return f"{math.ceil(100 * average_exit) / 100:.2f}"


def _best(text: str, kinds: Sequence[str], run: Run) -> dict[str, Any]:
    """Returns the summary of the tuned policy that `text` names."""
    _, budget = _read(text)
    fronts = [point for kind in kinds for point in load_front(run, kind)]
    if not fronts:
        kind = kinds[0] if len(kinds) == 1 else f"KIND, with KIND {'|'.join(kinds)}"
        raise UserError(
            f"policy is {text!r}, but nothing has been tuned: run python -m dat_jax.tuning "
            f"--workdir={run.path} --policy={kind}"
        )
    within = [point for point in fronts if point["average_exit"] <= budget]
    if not within:
        least = min(point["average_exit"] for point in fronts)
        raise UserError(
            f"policy is {text!r}: the lowest tuned average exit is {shown_budget(least)}, set AE<= "
            "to that or more"
        )
    return max(within, key=lambda point: point["bleu"])


def _suited(
    tuned: dict[str, Any], trained: TrainedModel, decoding: DecodingConfig
) -> DecodingConfig:
    """Returns the settings that the rule of a summary decodes with."""
    return suited(decoding, parse_policy(tuned["policy"], trained.config.model).rule)


def _differences(
    tuned: dict[str, Any], trained: TrainedModel, decoding: DecodingConfig
) -> list[str]:
    """Returns the model and the settings of a summary that differ from those used now, as text."""
    now = {
        "checkpoint_step": trained.steps[0],
        "averaged_checkpoints": len(trained.steps),
        "beam_size": decoding.beam_size,
        "length_penalty": decoding.length_penalty,
        "shortlist": decoding.shortlist,
        "trailing_gap": decoding.trailing_gap,
    }
    before = {"shortlist": 0, "trailing_gap": 0.0} | tuned
    return [
        f"{name} {before[name]} (now {value})"
        for name, value in now.items()
        if before.get(name, value) != value
    ]


def _is_tuned(text: str) -> bool:
    return text.partition(":")[0] == "tuned"


def _read(text: str) -> tuple[str | None, float]:
    """Parses a tuned policy into its kind of rule, if given, and its largest average exit."""
    kinds = "|".join(KINDS)
    match = re.fullmatch(rf"tuned(?::({kinds}))?:AE<=(\d+(?:\.\d+)?)", text)
    if match is None:
        raise UserError(f"policy is {text!r}: must have the form {_FORM}, with KIND {kinds}")
    return match[1], float(match[2])
