# SPDX-License-Identifier: Apache-2.0
"""The library's door: a trained model that translates text and searches token ids."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Int

from dat_jax.config import DecodingConfig, ModelConfig
from dat_jax.config.schema import from_dict, require
from dat_jax.decoding.inputs import read_limits, read_lines, read_sources
from dat_jax.decoding.rule_settings import suited
from dat_jax.decoding.search import Ids, SearchResult, search
from dat_jax.decoding.trained import TrainedModel
from dat_jax.decoding.translator import Translation, Translator, cut_source
from dat_jax.errors import UserError
from dat_jax.exits.checking import check_rule
from dat_jax.exits.files import load_policy
from dat_jax.exits.parsing import FilePlace, Policy, parse_policy
from dat_jax.exits.questions import Rule
from dat_jax.exits.rules import RULES
from dat_jax.export.safetensors import is_exported, read_exported
from dat_jax.runs.workdir import Run
from dat_jax.storage.paths import as_path
from dat_jax.tuning.fronts import describe_misfit, resolve_policy

PolicyLike = str | Rule | Policy

# Keys of `decoding` that no search looks at.
_ELSEWHERE = {
    "average_checkpoints": "give it to dat_jax.load",
    "checkpoint": "give it to dat_jax.load",
    "report_policies": "train.py reports",
    "report_split": "train.py reports",
    "bleu_tokenizer": "decode.py scores",
}


def load(
    workdir: str | Path,
    average_checkpoints: int | None = None,
    checkpoint: str | int | None = None,
) -> "TranslationModel":
    """Loads the model that `train.py` left in a workdir, or one that was exported to safetensors.

    Args:
        workdir: where `train.py` has been, or the output of
            `python -m dat_jax.export --format=safetensors`.
        average_checkpoints: how many of the last checkpoints to average; by default what the run's
            `decoding.average_checkpoints` says, or as many as there are.
        checkpoint: one checkpoint instead: `"best"`, `"last"` or a step.

    Raises:
        UserError: nothing has been trained there, a part is missing or damaged, the checkpoint is
            not there, there are fewer than asked for, or both arguments are given.
    """
    path = as_path(str(workdir))
    if is_exported(path):
        given = {"average_checkpoints": average_checkpoints, "checkpoint": checkpoint}
        for name, value in given.items():
            require(value is None, f"{name} is {value}: leave it out for {path}, one model")
        return TranslationModel(read_exported(path))
    run = Run(path)
    return TranslationModel(run.load(average_checkpoints, checkpoint), run)


@dataclasses.dataclass(frozen=True)
class TranslationModel:
    """A trained model, ready to translate.

    Settings that a method takes by name are the keys of `decoding` in `configs/base.py`, and those
    that are left out are the run's; none is what reports and scores alone look at.
    """

    trained: TrainedModel
    run: Run | None = None
    """The run in which tuned policies are looked up; a model that came from elsewhere has none."""

    def translate(
        self,
        lines: Iterable[str],
        *,
        policy: PolicyLike | None = None,
        n_best: int = 0,
        **settings: Any,
    ) -> list[Translation]:
        """Translates sentences, and returns a translation for each, in their order.

        Args:
            lines: one sentence each, in a list or any other iterable; an empty one stays empty, and
                so does one that does not fit into memory, of which a warning is logged.
            policy: when tokens exit, as `--config.policy` reads it, or a rule.
            n_best: how many hypotheses `Translation.n_best` has, up to `beam_size`, or fewer if
                fewer are found; best first, and the first is the translation itself. 0 or 1: none.
            **settings: `beam_size=4`, `length_penalty=0.6` and so on.

        Raises:
            UserError: a line is not text, a setting is unknown or impossible, or the model cannot
                decode by the policy or has no vocabularies.
        """
        sentences = read_lines(lines)
        translator = Translator(self.trained, *self._settings(policy, settings), n_best)
        translations = translator.translate(sentences)
        for line in translations.too_long:
            logging.warning("%s", line)
        return list(translations.sentences)

    def search(
        self,
        ids: Iterable[Ids],
        *,
        policy: PolicyLike | None = None,
        limits: Iterable[int] | Int[np.ndarray, " B"] | None = None,
        n_best: int = 0,
        **settings: Any,
    ) -> SearchResult:
        """Searches for the best hypothesis of each source, token ids in and token ids out.

        Args:
            ids: of each source, as its vocabulary encodes a sentence: EOS, 3, at the end, and no
                PAD, BOS or EOS before. EOS alone is a blank sentence. Padding on the right is
                dropped.
            policy: when tokens exit, as `--config.policy` reads it, or a rule.
            limits: the most tokens of each hypothesis, EOS counted; by default as
                `max_length_ratio` and `max_length_extra` say.
            n_best: how many hypotheses `Hypothesis.n_best` has, as for `translate`.
            **settings: `beam_size=4`, `length_penalty=0.6` and so on.

        Raises:
            UserError: a source is no sentence in the vocabulary or does not fit into memory, a
                limit is below 1 or more than fits, a setting is unknown or impossible, or the model
                cannot decode by the policy.
        """
        named, decoding = self._settings(policy, settings)
        whole = read_sources(ids, self.trained.model.source_vocabulary_size)
        sources = [cut_source(source, decoding) for source in whole]
        most = None if limits is None else read_limits(limits, len(sources))
        return search(self.trained, named.rule, sources, decoding, limits=most, n_best=n_best)

    def _settings(
        self, policy: PolicyLike | None, settings: dict[str, Any]
    ) -> tuple[Policy, DecodingConfig]:
        """The policy and all settings; of the run's, those that the policy can use."""
        decoding = self._decoding(settings)
        named = self._policy(policy, decoding)
        return named, suited(decoding, named.rule, settings)

    def _policy(self, policy: PolicyLike | None, decoding: DecodingConfig) -> Policy:
        config = self.trained.config
        if isinstance(policy, str) and FilePlace.of(policy):
            return load_policy(policy, config.model)
        match config.decoding.policy if policy is None else policy:
            case Policy() as named:
                return named._replace(rule=_checked(named.rule, config.model))
            case Rule() as rule:
                return Policy.of(_checked(rule, config.model))
            case str() as text if self.run is not None:
                if misfit := describe_misfit(text, self.run, self.trained, decoding):
                    logging.warning("%s", misfit)
                return resolve_policy(text, config.model, self.run)
            case str() as text:
                return parse_policy(text, config.model)
            case other:
                raise UserError(f"policy is {other!r}: must be a text such as 'fixed', or a rule")

    def _decoding(self, settings: dict[str, Any]) -> DecodingConfig:
        for name, place in _ELSEWHERE.items():
            if name in settings:
                raise UserError(f"{name} is no setting of a search: {place}")
        values = dataclasses.asdict(self.trained.config.decoding)
        return from_dict(DecodingConfig, values | settings)


def _checked(rule: Rule, config: ModelConfig) -> Rule:
    """Returns a rule that the model can decode with, of a known kind as its text says.

    Raises:
        UserError: the model cannot decode with it, or it answers wrongly.
    """
    if type(rule) in RULES:
        return parse_policy(str(rule), config).rule
    if not rule.fits(config):
        raise UserError(f"policy is {rule}: this model has no exit head or exits for it")
    check_rule(rule, config)
    return rule
