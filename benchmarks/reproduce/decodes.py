# SPDX-License-Identifier: Apache-2.0
"""Lines of a trained point: quality and cost of each of its policies."""

from collections.abc import Iterator

from benchmarks.reproduce.budget import Budget
from benchmarks.reproduce.exits import by_position, by_score
from benchmarks.reproduce.models import Model, known_by
from benchmarks.reproduce.suites import Point
from benchmarks.reproduce.trainings import Trained
from benchmarks.results import Line, Lines
from dat_jax.exits.parsing import Policy
from dat_jax.exits.thresholds import Thresholded


def decode(trained: Trained, point: Point, lines: Lines, budget: Budget) -> Iterator[Line]:
    """Decodes with each policy that has no line yet; yields the new lines.

    Raises:
        Spent: the budget is spent.
    """
    model = Model(trained, point.settings)
    budget.check()
    policies = model.policies(point)
    for split in point.splits:
        bleu, new = dict[str, float](), list[Line]()
        for policy in policies:
            decoding = model.translator(policy).decoding
            line = lines.find(**known_by(model.sha256, decoding, policy.name, split))
            if line is None:
                if not new:  # unwritten lines are not given up
                    budget.check()
                line = model.labels(split) | _evaluate(model, policy, split)
                new.append(line)
            bleu[policy.name] = line["bleu"]
            span = model.span(bleu)
            if span is not None:
                yield from (line | span for line in new)
                new = []


def _evaluate(model: Model, policy: Policy, split: str) -> Line:
    """Decodes a split; returns quality, cost and the distribution of exits."""
    translator = model.translator(policy)
    translations = translator.translate(model.text(split)[0], f"{split}, {policy.name}")
    rule, by_scores = policy.rule, None
    if isinstance(rule, Thresholded):
        by_scores = by_score(model.observed(type(rule), split), rule)
    return model.score(translator, translations, split) | {
        "exit_by_position": by_position(translations.sentences),
        "exit_by_score": by_scores,
    }
