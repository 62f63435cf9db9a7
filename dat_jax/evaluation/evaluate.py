# SPDX-License-Identifier: Apache-2.0
"""Translates and scores one split."""

from collections.abc import Sequence

from dat_jax.config import DecodingConfig
from dat_jax.data.dataset import Dataset
from dat_jax.decoding.rule_settings import suited
from dat_jax.decoding.trained import TrainedModel
from dat_jax.decoding.translator import Translations, Translator
from dat_jax.evaluation.scores import score, tokenizers_of
from dat_jax.evaluation.summary import Summary
from dat_jax.evaluation.tally import Tally
from dat_jax.exits.parsing import Policy
from dat_jax.runtime.jax_flags import our_modes


@our_modes()
def evaluate(
    trained: TrainedModel, dataset: Dataset, policy: Policy, decoding: DecodingConfig, split: str
) -> tuple[Translations, Summary]:
    """Translates a split and scores it; returns the translations and the figures of `figures`.

    `policy` overrides `decoding.policy`; it has those of the settings that its rule can use.

    Raises:
        UserError: the text of the split is missing or damaged.
    """
    translator = Translator(trained, policy, suited(decoding, policy.rule))
    sources, references = dataset.text(split)
    translations = translator.translate(sources, f"{split}, {policy.name}")
    return translations, figures(translator, translations, references)


def figures(
    translator: Translator, translations: Translations, references: Sequence[str]
) -> Summary:
    """Returns the scores and the cost of translations; see `Summary`.

    Raises:
        UserError: there are no translations, or not as many as references.
    """
    hypotheses = [sentence.text for sentence in translations.sentences]
    tokenizers = tokenizers_of(translator.trained.config, translator.decoding)
    tally = Tally(translator)
    tally.add(translations)
    return {**score(hypotheses, references, tokenizers), **tally.summary()}
