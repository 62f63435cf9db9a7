# SPDX-License-Identifier: Apache-2.0
"""Lines of a trained point: quality and cost by each of its policies, and measured speed."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any

from benchmarks._budget import Budget
from benchmarks._exits import by_position, by_score
from benchmarks._lines import Line, Lines
from benchmarks._statistics import count, pack
from benchmarks._suites import TUNED, Point
from benchmarks._timing import Timed, interleaved, machine, rate
from benchmarks._trainings import Trained
from dat_jax.config import DecodingConfig
from dat_jax.decoding.translator import Translations, Translator
from dat_jax.evaluation.evaluate import figures
from dat_jax.evaluation.scores import tokenizers_of
from dat_jax.evaluation.tally import Tally
from dat_jax.exits.parsing import Policy, parse_policy
from dat_jax.exits.thresholds import Thresholded
from dat_jax.tuning.fronts import conditions, load_front, save_front
from dat_jax.tuning.observe import Observed, observe
from dat_jax.tuning.search import tune

KEYS = ("config_sha256", "split", "policy", "beam_size", "batch_size")
"""What a line is known by: the training, the text, and the way to decode."""

_BATCHES = {512: None, 32: 512, 1: 64}
"""Sentences decoded at a time, and of how many the speed is taken; of all where there is none."""

_REPETITIONS = 3

_OF_TEXT = ("average_exit", "exit_histogram", "flops_per_token", "config_sha256")
"""Figures that are the same however many sentences are in work."""


class Model:
    """A trained point with its parameters; what its lines have in common is read or found once."""

    def __init__(self, trained: Trained) -> None:
        """Loads the parameters."""
        self.trained, self.model = trained, trained.run.load()
        self.decoding = self.model.config.decoding
        self.text = cache(trained.run.text)
        self.observed = cache(self._observe)

    def _observe(self, kind: type[Thresholded], split: str) -> Observed:
        """All that rules of a kind look at on the references of a split."""
        return observe(self.model, self.trained.run.dataset().tokens(split), kind)


def decode(trained: Trained, point: Point, lines: Lines, budget: Budget) -> Iterator[Line]:
    """Decodes with each policy that has no line yet; yields the lines that are new.

    Raises:
        Spent: the time is up.
    """
    model = Model(trained)
    budget.check()
    policies = _policies(model, point)
    for split in point.splits:
        bleu: dict[str, float] = {}
        new: list[Line] = []
        for policy in policies:
            line = lines.find(**known_by(model.trained.sha256, model.decoding, policy.name, split))
            if line is None:
                budget.check()
                line = _labels(model, split) | _evaluate(model, policy, split)
                new.append(line)
            bleu[policy.name] = line["bleu"]
            span = _span(model, bleu)
            if span is not None:
                yield from (line | span for line in new)
                new = []


def _policies(model: Model, point: Point) -> list[Policy]:
    """The policies of a point, those that are tuned among them, which is done if need be."""
    config, policies = model.model.config.model, list[Policy]()
    for text in point.policies:
        kind, _, of = text.partition(":")
        names = [text]
        if kind == TUNED:
            names = [summary["policy"] for summary in _front(model, of)]
        policies += [parse_policy(name, config) for name in names]
    return policies


def _front(model: Model, kind: str) -> list[dict[str, Any]]:
    """The tuned rules of a kind, tuned if that has not been done as we decode."""
    run, wanted = model.trained.run, conditions(model.model, model.decoding)
    front = load_front(run, kind)
    if not front or any(front[0].get(key) != value for key, value in wanted.items()):
        front = tune(model.model, run.dataset(), kind, model.decoding)
        with run.writing():
            save_front(run, kind, front)
    return front


def _evaluate(model: Model, policy: Policy, split: str) -> Line:
    """Quality and cost of a policy, and where its exits are."""
    translator = Translator(model.model, policy, model.decoding)
    translations = translator.translate(model.text(split)[0], f"{split}, {policy.name}")
    rule, by_exit = policy.rule, None
    if isinstance(rule, Thresholded):
        by_exit = by_score(model.observed(type(rule), split), rule)
    exits = {
        "exit_by_position": by_position(translations.sentences),
        "exit_by_score": by_exit,
    }
    return _scored(model, translator, translations, split) | exits


def _scored(model: Model, translator: Translator, translations: Translations, split: str) -> Line:
    """Quality and cost of translations of a split, and BLEU's counts of each sentence; the config's
    checksum has no paths."""
    references = model.text(split)[1]
    texts = [sentence.text for sentence in translations.sentences]
    tokenizer = tokenizers_of(model.model.config, translator.decoding).asked
    own = {"config_sha256": model.trained.sha256}
    own["bleu_counts"] = pack(count(texts, references, tokenizer))
    return figures(translator, translations, references) | machine() | own


def _of_engine(translator: Translator, translations: Translations) -> Line:
    """The work and the settings that made translations, without figures of their text."""
    tally = Tally(translator)
    tally.add(translations)
    return {key: value for key, value in tally.summary().items() if key not in _OF_TEXT}


def known_by(sha256: str, decoding: DecodingConfig, policy: str, split: str) -> Line:
    """The values of `KEYS`."""
    return {
        "config_sha256": sha256,
        "split": split,
        "policy": policy,
        "beam_size": decoding.beam_size,
        "batch_size": decoding.batch_size,
    }


def _labels(model: Model, split: str) -> Line:
    """The names of a line's training, its seed and steps, and the text."""
    training = model.model.config.training
    names = {"point": model.trained.training.name, "seed": training.seed, "split": split}
    head = model.model.config.exit
    taught = {"lambda": head.exit_penalty, "sigma": head.oracle_smoothing, "oracle": head.oracle}
    has_head = model.model.config.model.exit_head != "none"
    return names | {"steps": training.steps} | (taught if has_head else {})


def _span(model: Model, bleu: dict[str, float]) -> dict[str, float | None] | None:
    """The BLEU between the first exit and the last; None until that is known."""
    depths = model.model.config.model.exit_depths
    if len(depths) == 1:
        return {"span": None}
    ends = [f"fixed:{depth}" for depth in (depths[0], depths[-1])]
    return {"span": bleu[ends[1]] - bleu[ends[0]]} if bleu.keys() >= set(ends) else None


def measure_speed(
    points: Sequence[tuple[Trained, Point]], lines: Lines, budget: Budget
) -> Iterator[Line]:
    """Times all policies of all points in turn, at several batch sizes; yields the lines.

    Each translates `test`, text to text.

    Raises:
        Spent: the time is up.
    """
    candidates = []
    for trained, point in points:
        model = Model(trained)
        for policy in _policies(model, point):
            budget.check()
            candidates.append((model, policy))
    for batch_size, sentences in _BATCHES.items():
        known = _timed(candidates, lines, batch_size)
        if None in known:
            budget.check()
            whole = _timed(candidates, lines, max(_BATCHES))
            new = _speeds(candidates, batch_size, sentences, whole)
            yield from (line for old, line in zip(known, new, strict=True) if old is None)


def _timed(
    candidates: Sequence[tuple[Model, Policy]], lines: Lines, batch_size: int
) -> list[Line | None]:
    """The line of each candidate at a batch size, if it is there."""
    return [
        lines.find(
            **known_by(model.trained.sha256, _in_batches(model, batch_size), policy.name, "test")
        )
        for model, policy in candidates
    ]


def _in_batches(model: Model, batch_size: int) -> DecodingConfig:
    """The settings by which a model is timed."""
    return dataclasses.replace(model.decoding, batch_size=batch_size)


def _speeds(
    candidates: Sequence[tuple[Model, Policy]],
    batch_size: int,
    sentences: int | None,
    whole: Sequence[Line | None],
) -> Iterator[Line]:
    """The line of each candidate at a batch size. Those of a part of the text have the scores and
    the exits of the whole."""
    translators = [
        Translator(model.model, policy, _in_batches(model, batch_size))
        for model, policy in candidates
    ]
    runs = [
        partial(translator.translate, model.text("test")[0][:sentences], policy.name)
        for (model, policy), translator in zip(candidates, translators, strict=True)
    ]
    timed = interleaved(runs, _REPETITIONS, f"batches of {batch_size}")
    fresh = []
    for (model, _), translator, one, old in zip(candidates, translators, timed, whole, strict=True):
        made = translator, one.outcome
        line = old | _of_engine(*made) if old else _scored(model, *made, "test")
        fresh.append(line | _speed(one))
    spans = _spans(candidates, fresh)
    for (model, _), line, span in zip(candidates, fresh, spans, strict=True):
        yield _labels(model, "test") | line | span


def _speed(timed: Timed[Translations]) -> Line:
    """Tokens a second, and of how many sentences that was taken."""
    sentences = timed.outcome.sentences
    amount = sum(len(sentence.exits) for sentence in sentences)
    return rate(amount, timed.seconds) | {"timed_sentences": len(sentences)}


def _spans(
    candidates: Sequence[tuple[Model, Policy]], lines: Sequence[Line]
) -> Iterator[dict[str, float | None]]:
    """The span of each candidate's model; all cuts of a model are among them."""
    for model, _ in candidates:
        bleu = {
            policy.name: line["bleu"]
            for (other, policy), line in zip(candidates, lines, strict=True)
            if other is model
        }
        yield _span(model, bleu) or {}
