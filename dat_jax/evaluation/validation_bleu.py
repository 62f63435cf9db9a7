# SPDX-License-Identifier: Apache-2.0
"""BLEU on validation sentences during training, at chosen exits."""

import dataclasses
from collections.abc import Callable

import jax

from dat_jax.config import Config
from dat_jax.data.dataset import Dataset
from dat_jax.data.vocabulary import Vocabularies
from dat_jax.decoding.rule_settings import suited
from dat_jax.decoding.sizing import Platform, platform_of, room_for
from dat_jax.decoding.trained import TrainedModel, on_local_devices
from dat_jax.decoding.translator import Translations, Translator
from dat_jax.evaluation.scores import score, tokenizers_of
from dat_jax.exits.parsing import parse_policy
from dat_jax.model.transformer import Transformer
from dat_jax.types import Params

_SAMPLES = 2

Measure = Callable[[Params], tuple[dict[str, float], list[str]]]


def make_validation_bleu(config: Config, model: Transformer, dataset: Dataset) -> Measure | None:
    """Returns the function that measures whole parameters, or None if `training.bleu_every` is 0.

    It translates the first `training.bleu_sentences` of the validation split, greedily, and returns
    the BLEU at each of `training.bleu_exits` (`bleu/exit_6`), and lines that show two sentences
    with their translations at the deepest of them. All processes of a run call it together.

    Raises:
        UserError: the text of the split is missing or damaged.
    """
    training = config.training
    if not training.bleu_every:
        return None
    sources, references = (
        text[: training.bleu_sentences or None] for text in dataset.text("valid")
    )
    depths = sorted(set(training.bleu_exits)) or [config.model.decoder_layers]
    decoding = dataclasses.replace(config.decoding, beam_size=1)
    sizes = _one_room(config, dataset.vocabularies, sources)

    def measure(params: Params) -> tuple[dict[str, float], list[str]]:
        on_devices = jax.device_put(params, on_local_devices())
        trained = TrainedModel(config, model, on_devices, dataset.vocabularies)
        found = dict[int, Translations]()
        for depth in depths:
            policy = parse_policy(f"fixed:{depth}", config.model)
            own = suited(decoding, policy.rule)
            translator = Translator(trained, policy, own, sizes=sizes)
            found[depth] = translator.translate(sources, f"valid, {policy.name}")
        scores = {}
        for depth, translations in found.items():
            hypotheses = [sentence.text for sentence in translations.sentences]
            scores[f"bleu/exit_{depth}"] = score(
                hypotheses, references, tokenizers_of(config, decoding)
            )["bleu"]
        return scores, _samples(sources, references, found[depths[-1]])

    return measure


def _one_room(config: Config, vocabularies: Vocabularies, sources: list[str]) -> Platform:
    """Returns sizes that pad all sources to one length, so that each exit compiles one program.

    Only sources that are too long to train on have programs of their own.
    """
    usual = platform_of(jax.local_devices()[0])
    longest = max(map(len, vocabularies.source.encode(sources)))
    room = room_for(min(longest, config.data.max_length), usual)
    return dataclasses.replace(usual, shortest_room=room)


def _samples(sources: list[str], references: list[str], found: Translations) -> list[str]:
    """Returns lines that show the first sentences and their translations."""
    lines = []
    for source, reference, sentence in list(zip(sources, references, found.sentences, strict=True))[
        :_SAMPLES
    ]:
        lines += [f"source      {source}", f"reference   {reference}"]
        lines += [f"translation {sentence.text}"]
    return lines
