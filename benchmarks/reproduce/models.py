# SPDX-License-Identifier: Apache-2.0
"""Trained points: the policies to decode with, scores of translations, and the keys of a line."""

import dataclasses
from functools import cache
from typing import Any

from benchmarks.bleu_counts import count, pack
from benchmarks.reproduce.suites import TUNED, Point, RuleSettings
from benchmarks.reproduce.trainings import Trained
from benchmarks.results import Line
from benchmarks.timing import machine
from dat_jax.config import DecodingConfig
from dat_jax.decoding.rule_settings import suited
from dat_jax.decoding.translator import Translations, Translator
from dat_jax.evaluation.evaluate import figures
from dat_jax.evaluation.scores import tokenizers_of
from dat_jax.exits.parsing import Policy, parse_policy
from dat_jax.exits.thresholds import Thresholded
from dat_jax.tuning.fronts import front_of, save_front
from dat_jax.tuning.observe import Observed, observe
from dat_jax.tuning.search import tune

KEYS = ("config_sha256", "split", "policy", "beam_size", "shortlist", "trailing_gap", "batch_size")
"""The keys that identify a line: the training, the text, and how it was decoded."""


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
