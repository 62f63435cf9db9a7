# SPDX-License-Identifier: Apache-2.0
"""Lines of a trained point: quality and cost of each of its policies, and measured speed."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bleu_counts import count, pack
from benchmarks.reproduce.budget import Budget
from benchmarks.reproduce.exits import by_position, by_score
from benchmarks.reproduce.suites import TUNED, Point, RuleSettings
from benchmarks.reproduce.trainings import Trained
from benchmarks.results import Line, Lines
from benchmarks.timing import interleaved, machine, rate
from dat_jax.config import DecodingConfig
from dat_jax.decoding.rule_settings import suited
from dat_jax.decoding.translator import Translations, Translator
from dat_jax.evaluation.evaluate import figures
from dat_jax.evaluation.scores import tokenizers_of
from dat_jax.evaluation.tally import Tally
from dat_jax.exits.parsing import Policy, parse_policy
from dat_jax.exits.thresholds import Thresholded
from dat_jax.runtime.programs import keep_programs
from dat_jax.tuning.fronts import front_of, save_front
from dat_jax.tuning.observe import Observed, observe
from dat_jax.tuning.search import tune

KEYS = ("config_sha256", "split", "policy", "beam_size", "shortlist", "trailing_gap", "batch_size")
"""The keys that identify a line: the training, the text, and how it was decoded."""

BATCH_SIZES = (512, 32, 1)
"""Batch sizes to time; at the first asked for, all sentences are translated too, for scores."""

_SENTENCES = {512: 1_024, 32: 512, 1: 64}  # to time each with

_PROCESSES = 3  # that time each policy, one after another; their speeds differ most

_IN_TURN = 4
"""Policies that take turns: a process keeps the programs of no more, of four lengths each."""

_OF_TEXT = ("average_exit", "exit_histogram", "flops_per_token", "config_sha256")
"""Figures of the output, which do not depend on the batch size."""


class Model:
    """A loaded training; its texts and observations are read or computed once."""

    def __init__(self, trained: Trained, settings: RuleSettings) -> None:
        """Loads the parameters; `settings` are for the policies that can use them."""
        self.run, self.name, self.sha256 = trained.run, trained.training.name, trained.sha256
        self.trained = trained.run.load()
        self.decoding = settings.of(trained.decoding)
        self.text = cache(trained.run.text)
        self.observed = cache(self._observe)

    def _observe(self, kind: type[Thresholded], split: str) -> Observed:
        """Observes what rules of a kind compare, on the references of a split."""
        tokens = self.run.dataset().tokens(split)
        return observe(self.trained, tokens, kind, self.decoding.shortlist)

    def translator(self, policy: Policy, batch_size: int | None = None) -> Translator:
        """Returns a translator with this model's settings, or with another batch size."""
        size = self.decoding.batch_size if batch_size is None else batch_size
        decoding = dataclasses.replace(self.decoding, batch_size=size)
        return Translator(self.trained, policy, suited(decoding, policy.rule))

    def policies(self, point: Point) -> list[Policy]:
        """Returns the policies of a point, after tuning thresholds if it asks for them."""
        names = list[str]()
        for text in point.policies:
            kind, _, rule = text.partition(":")
            tuned = kind == TUNED
            names += [x["policy"] for x in self._front(rule)] if tuned else [text]
        return [parse_policy(name, self.trained.config.model) for name in names]

    def _front(self, kind: str) -> list[dict[str, Any]]:
        """Returns tuned thresholds; tunes them unless that was done with the same settings."""
        front = front_of(self.run, kind, self.trained, self.decoding)
        if not front:
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
    settings = {key: getattr(decoding, key) for key in KEYS[3:]}
    return {"config_sha256": sha256, "split": split, "policy": policy} | settings


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


class _Candidate(NamedTuple):
    """A policy to time."""

    trained: Trained
    settings: RuleSettings
    policy: str


def measure_speed(
    points: Sequence[tuple[Trained, Point]],
    batch_sizes: Sequence[int],
    lines: Lines,
    budget: Budget,
) -> Iterator[Line]:
    """Times the policies of all points in turn, translating `test`, at each batch size.

    Yields the new lines.

    Raises:
        Spent: the budget is spent.
    """
    candidates, loaded = list[_Candidate](), list[tuple[Model, Policy]]()
    for trained, point in points:
        budget.check()
        model = Model(trained, point.settings)
        for policy in model.policies(point):
            candidates.append(_Candidate(trained, point.settings, policy.name))
            loaded.append((model, policy))

    def known(batch_size: int) -> list[Line | None]:
        return [
            lines.find(
                **known_by(model.sha256, translator.decoding, translator.policy.name, "test")
            )
            for model, translator in _batched(loaded, batch_size)
        ]

    for batch_size in batch_sizes:
        old = known(batch_size)
        if None in old:
            budget.check()
            timed = _time(candidates, batch_size, _SENTENCES[batch_size])
            new = _lines_of(_batched(loaded, batch_size), timed, known(batch_sizes[0]))
            yield from (line for before, line in zip(old, new, strict=True) if before is None)


def _load(candidates: Sequence[_Candidate]) -> list[tuple[Model, Policy]]:
    """Loads the models of candidates, each once, and reads their policies."""
    models, loaded = dict[tuple[Path, RuleSettings], Model](), list[tuple[Model, Policy]]()
    for trained, settings, policy in candidates:
        key = trained.run.path, settings
        models[key] = model = models.get(key) or Model(trained, settings)
        loaded.append((model, parse_policy(policy, model.trained.config.model)))
    return loaded


def _batched(
    loaded: Sequence[tuple[Model, Policy]], batch_size: int
) -> list[tuple[Model, Translator]]:
    return [(model, model.translator(policy, batch_size)) for model, policy in loaded]


def _time(
    candidates: Sequence[_Candidate], batch_size: int, sentences: int
) -> list[tuple[Translations, list[float]]]:
    """Returns the translations of each candidate, and its seconds in each process.

    Compiling is left out: long texts take more programs than a process keeps between two turns.
    """
    each = list[list[Translations]]()
    for _ in range(_PROCESSES):
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            job = fresh.submit(_time_here, candidates, batch_size, sentences)
            each.append(job.result())
    return [(runs[0], [run.cost.seconds for run in runs]) for runs in zip(*each, strict=True)]


def _time_here(
    candidates: Sequence[_Candidate], batch_size: int, sentences: int
) -> list[Translations]:
    """Times the candidates in this process; returns the translations with their time."""
    keep_programs()
    runs = [
        partial(_translate, model, translator, sentences)
        for model, translator in _batched(_load(candidates), batch_size)
    ]
    parts = [runs[first : first + _IN_TURN] for first in range(0, len(runs), _IN_TURN)]
    done = [x for part in parts for x in interleaved(part, 1, f"batch {batch_size}")]
    return [translations for translations, _ in done]


def _lines_of(
    batched: Sequence[tuple[Model, Translator]],
    timed: Sequence[tuple[Translations, list[float]]],
    whole: Sequence[Line | None],
) -> Iterator[Line]:
    """Yields the line of each candidate; scores and exits are those of its line in `whole`.

    Where there is none, all sentences are translated for them.
    """
    fresh, bleu = list[Line](), defaultdict[str, dict[str, float]](dict)
    for (model, translator), (outcome, seconds), old in zip(batched, timed, whole, strict=True):
        scored = old or model.score(translator, _translate(model, translator), "test")
        line = scored | _work(translator, outcome) | machine()
        tokens = sum(len(sentence.exits) for sentence in outcome.sentences)
        speed = rate(tokens, seconds) | {"processes": _PROCESSES}
        fresh.append(line | speed | {"timed_sentences": len(outcome.sentences)})
        bleu[model.sha256][translator.policy.name] = line["bleu"]
    for (model, _), line in zip(batched, fresh, strict=True):
        yield model.labels("test") | line | (model.span(bleu[model.sha256]) or {})


def _translate(model: Model, translator: Translator, sentences: int | None = None) -> Translations:
    """Translates the first sentences of `test`, or all."""
    return translator.translate(model.text("test")[0][:sentences], translator.policy.name)


def _work(translator: Translator, translations: Translations) -> Line:
    """Returns the work and the settings of translations, without the figures of their output."""
    tally = Tally(translator)
    tally.add(translations)
    return {key: value for key, value in tally.summary().items() if key not in _OF_TEXT}
