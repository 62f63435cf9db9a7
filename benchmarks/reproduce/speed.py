# SPDX-License-Identifier: Apache-2.0
"""Lines of the suite `time`: quality, cost and measured time of the policies of several points."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from benchmarks.reproduce.budget import Budget
from benchmarks.reproduce.models import Model, known_by
from benchmarks.reproduce.suites import Point, RuleSettings
from benchmarks.reproduce.trainings import Trained
from benchmarks.results import Line, Lines
from benchmarks.timing import interleaved, machine, rate
from dat_jax.decoding.translator import Translations, Translator
from dat_jax.evaluation.tally import Tally
from dat_jax.exits.parsing import Policy, parse_policy
from dat_jax.runtime.programs import keep_programs

BATCH_SIZES = (512, 32, 1)
"""Batch sizes to time; at the first asked for, all sentences are translated too, for scores."""

_SENTENCES = {512: 1_024, 32: 512, 1: 64}  # to time each with

_PROCESSES = 3  # that time each policy, one after another; their speeds differ most

_IN_TURN = 4
"""Policies that take turns: a process keeps the programs of no more, of four lengths each."""

_OF_TEXT = ("average_exit", "exit_histogram", "flops_per_token", "config_sha256")
"""Figures of the output, which do not depend on the batch size."""


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
