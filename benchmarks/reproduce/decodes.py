# SPDX-License-Identifier: Apache-2.0
"""Lines of a trained point: quality and cost of each of its policies, and measured speed."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any, cast, get_args

from benchmarks.bleu_counts import count, pack
from benchmarks.reproduce.budget import Budget
from benchmarks.reproduce.exits import by_position, by_score
from benchmarks.reproduce.suites import TUNED, Point
from benchmarks.reproduce.trainings import Trained
from benchmarks.results import Line, Lines
from benchmarks.timing import interleaved, machine, rate
from dat_jax.config import DecodingConfig
from dat_jax.decoding.translator import Translations, Translator
from dat_jax.evaluation.evaluate import figures
from dat_jax.evaluation.scores import tokenizers_of
from dat_jax.evaluation.tally import Tally
from dat_jax.exits.parsing import Policy, parse_policy
from dat_jax.tuning.fronts import Kind, conditions, load_front, save_front
from dat_jax.tuning.search import Observed, observe, tune

KEYS = ("config_sha256", "split", "policy", "beam_size", "batch_size")
"""The keys that identify a line: the training, the text, and how it was decoded."""

_BATCHES = {512: None, 32: 512, 1: 64}
"""Batch sizes to time, and the number of sentences to time each with; None for all sentences."""

_REPETITIONS = 3

_OF_TEXT = ("average_exit", "exit_histogram", "flops_per_token", "config_sha256")
"""Figures of the output, which do not depend on the batch size."""


class Model:
    """A loaded training; its texts and observations are read or computed once."""

    def __init__(self, trained: Trained) -> None:
        """Loads the parameters."""
        self.run, self.name, self.sha256 = trained.run, trained.training.name, trained.sha256
        self.trained = trained.run.load()
        self.decoding = self.trained.config.decoding
        self.text = cache(trained.run.text)
        self.observed = cache(self._observe)

    def _observe(self, kind: Kind, split: str) -> Observed:
        """Observes what rules of a kind compare, on the references of a split."""
        return observe(self.trained, self.run.dataset().tokens(split), kind)

    def policies(self, point: Point) -> list[Policy]:
        """Returns the policies of a point, after tuning thresholds if it asks for them."""
        names = list[str]()
        for text in point.policies:
            kind, _, rule = text.partition(":")
            tuned = kind == TUNED
            names += [x["policy"] for x in self._front(cast(Kind, rule))] if tuned else [text]
        return [parse_policy(name, self.trained.config.model) for name in names]

    def _front(self, kind: Kind) -> list[dict[str, Any]]:
        """Returns tuned thresholds; tunes them unless that was done with the same settings."""
        wanted = conditions(self.trained, self.decoding)
        front = load_front(self.run, kind)
        if not front or any(front[0].get(key) != value for key, value in wanted.items()):
            front = tune(self.trained, self.run.dataset(), kind, self.decoding)
            with self.run.writing():
                save_front(self.run, kind, front)
        return front

    def labels(self, split: str) -> Line:
        """Returns what names the training and the text."""
        config = self.trained.config
        labels = {"point": self.name, "seed": config.training.seed, "split": split}
        labels["steps"] = config.training.steps
        if config.model.exit_head != "none":
            head = config.exit
            labels |= {"lambda": head.exit_penalty, "sigma": head.oracle_smoothing}
            labels["oracle"] = head.oracle
        return labels

    def span(self, bleu: dict[str, float]) -> dict[str, float | None] | None:
        """Returns the difference in BLEU between the last and the first exit; None if unknown."""
        depths = self.trained.config.model.exit_depths
        if len(depths) == 1:
            return {"span": None}
        first, last = (bleu.get(f"fixed:{depth}") for depth in (depths[0], depths[-1]))
        return None if first is None or last is None else {"span": last - first}

    def score(self, translator: Translator, translations: Translations, split: str) -> Line:
        """Returns quality, cost and BLEU counts; its checksum replaces the config's, with paths."""
        references = self.text(split)[1]
        texts = [sentence.text for sentence in translations.sentences]
        tokenizer = tokenizers_of(self.trained.config, translator.decoding).asked
        own = {"config_sha256": self.sha256}
        own["bleu_counts"] = pack(count(texts, references, tokenizer))
        return figures(translator, translations, references) | machine() | own


def known_by(sha256: str, decoding: DecodingConfig, policy: str, split: str) -> Line:
    """Returns the values of `KEYS`."""
    sizes = {"beam_size": decoding.beam_size, "batch_size": decoding.batch_size}
    return {"config_sha256": sha256, "split": split, "policy": policy} | sizes


def decode(trained: Trained, point: Point, lines: Lines, budget: Budget) -> Iterator[Line]:
    """Decodes with each policy that has no line yet; yields the new lines.

    Raises:
        Spent: the budget is spent.
    """
    model = Model(trained)
    budget.check()
    policies = model.policies(point)
    for split in point.splits:
        bleu, new = dict[str, float](), list[Line]()
        for policy in policies:
            line = lines.find(**known_by(model.sha256, model.decoding, policy.name, split))
            if line is None:
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
    translator = Translator(model.trained, policy, model.decoding)
    translations = translator.translate(model.text(split)[0], f"{split}, {policy.name}")
    kind, by_scores = policy.rule.kind, None
    if kind in get_args(Kind):
        by_scores = by_score(model.observed(cast(Kind, kind), split), policy.rule)
    return model.score(translator, translations, split) | {
        "exit_by_position": by_position(translations.sentences),
        "exit_by_score": by_scores,
    }


def measure_speed(
    points: Sequence[tuple[Trained, Point]], lines: Lines, budget: Budget
) -> Iterator[Line]:
    """Times the policies of all points in turn, translating `test`, at each batch size.

    Yields the new lines.

    Raises:
        Spent: the budget is spent.
    """
    candidates = list[tuple[Model, Policy]]()
    for trained, point in points:
        model = Model(trained)
        for policy in model.policies(point):
            budget.check()
            candidates.append((model, policy))

    def known(batch_size: int) -> list[Line | None]:
        return [
            lines.find(**known_by(model.sha256, _batched(model, batch_size), policy.name, "test"))
            for model, policy in candidates
        ]

    for batch_size, sentences in _BATCHES.items():
        old = known(batch_size)
        if None in old:
            budget.check()
            new = _speeds(candidates, batch_size, sentences, known(max(_BATCHES)))
            yield from (line for before, line in zip(old, new, strict=True) if before is None)


def _batched(model: Model, batch_size: int) -> DecodingConfig:
    return dataclasses.replace(model.decoding, batch_size=batch_size)


def _speeds(
    candidates: Sequence[tuple[Model, Policy]],
    batch_size: int,
    sentences: int | None,
    whole: Sequence[Line | None],
) -> Iterator[Line]:
    """Yields the line of each candidate at a batch size.

    With part of the text, scores and exits are those of the line in `whole`.
    """
    translators = [
        Translator(model.trained, policy, _batched(model, batch_size))
        for model, policy in candidates
    ]
    runs = [
        partial(translator.translate, model.text("test")[0][:sentences], policy.name)
        for (model, policy), translator in zip(candidates, translators, strict=True)
    ]
    timed = interleaved(runs, _REPETITIONS, f"batches of {batch_size}")
    fresh, bleu = list[Line](), dict[Model, dict[str, float]]()
    for (model, policy), translator, (outcome, seconds), old in zip(
        candidates, translators, timed, whole, strict=True
    ):
        line = old | _work(translator, outcome) if old else model.score(translator, outcome, "test")
        tokens = sum(len(sentence.exits) for sentence in outcome.sentences)
        speed = rate(tokens, seconds) | {"timed_sentences": len(outcome.sentences)}
        fresh.append(line | speed)
        bleu.setdefault(model, {})[policy.name] = line["bleu"]
    for (model, _), line in zip(candidates, fresh, strict=True):
        yield model.labels("test") | line | (model.span(bleu[model]) or {})


def _work(translator: Translator, translations: Translations) -> Line:
    """Returns the work and the settings of translations, without the figures of their output."""
    tally = Tally(translator)
    tally.add(translations)
    return {key: value for key, value in tally.summary().items() if key not in _OF_TEXT}
