# SPDX-License-Identifier: Apache-2.0
"""Figures of one decoding run, as in `summary.json` and the lines of `results/`."""

from typing import Any

import numpy as np

from dat_jax import flops
from dat_jax.decoding.cost import DecodeCost
from dat_jax.decoding.translator import Translations, Translator
from dat_jax.decoding.work import describe
from dat_jax.evaluation.provenance import origin
from dat_jax.evaluation.summary import Summary
from dat_jax.runtime.processes import count


class Tally:
    """Running sums over translations."""

    def __init__(self, translator: Translator) -> None:
        """Starts empty, for translations of this translator."""
        self._translator = translator
        num_layers = translator.trained.config.model.decoder_layers
        self._histogram = np.zeros(num_layers + 1, np.int64)
        self._cost = DecodeCost.nothing(num_layers)
        self._flops = self._sentences = self._cut = self._too_long = 0

    def add(self, translations: Translations) -> None:
        """Adds these translations."""
        trained, rule = self._translator.trained, self._translator.policy.rule
        config, vocabulary_size = trained.config.model, trained.model.target_vocabulary_size
        for sentence in translations.sentences:
            exits = np.asarray(sentence.exits, np.int64)
            self._histogram += np.bincount(exits, minlength=len(self._histogram))
            self._flops += flops.translation(
                config,
                vocabulary_size,
                sentence.source_length,
                exits,
                rule,
                self._translator.decoding.shortlist,
            )
        self._cost += translations.cost
        self._sentences += len(translations.sentences)
        self._cut += translations.cut
        self._too_long += len(translations.too_long)

    @property
    def sentences(self) -> int:
        """The number of translations added so far."""
        return self._sentences

    def state(self) -> dict[str, Any]:
        """Returns all sums as JSON-serialisable values, for `restored`."""
        return {
            "histogram": self._histogram.tolist(),
            "cost": self._cost.to_json(),
            "flops": int(self._flops),
            "sentences": self._sentences,
            "cut": self._cut,
            "too_long": self._too_long,
        }

    @classmethod
    def restored(cls, translator: Translator, state: dict[str, Any]) -> "Tally":
        """Returns a tally that continues from the sums of `state`."""
        tally = cls(translator)
        tally._histogram = np.array(state["histogram"], np.int64)
        tally._cost = DecodeCost.from_json(state["cost"])
        tally._flops, tally._sentences = state["flops"], state["sentences"]
        tally._cut, tally._too_long = state["cut"], state.get("too_long", 0)
        return tally

    def summary(self) -> Summary:
        """Returns all figures but those of scores and of the request.

        `average_exit`, `exit_histogram` and `flops_per_token` are taken over the tokens of the
        returned hypotheses; all else is what the engine ran, other hypotheses included.
        """
        trained, policy = self._translator.trained, self._translator.policy
        config, decoding = trained.config, self._translator.decoding
        devices = count() * len(trained.devices)
        cost = self._cost
        tokens, computed = int(self._histogram.sum()), int(cost.work.computed[:-1].sum())
        ran = describe(cost.work, tokens)
        return {
            "average_exit": float(self._histogram @ np.arange(len(self._histogram)))
            / max(tokens, 1),
            "exit_histogram": {d: int(self._histogram[d]) for d in config.model.exit_depths},
            "flops_per_token": self._flops / max(tokens, 1),
            "layers_executed_per_token": ran["layers_executed_per_token"],
            "ticks": ran["ticks"],
            "ticks_per_stage": ran["ticks_per_stage"],
            "rows_per_stage": ran["rows_per_stage"],
            "occupancy": ran["occupancy"],
            "busiest_device": cost.busiest * devices / max(computed, 1),
            "tokens_per_second": tokens / cost.seconds if cost.seconds else 0.0,
            "seconds": cost.seconds,
            "seconds_compiling": cost.seconds_compiling,
            "in_work": cost.in_work,
            "peak_bytes": cost.peak_bytes,
            "sentences": self._sentences,
            "sentences_cut": self._cut,
            "sentences_too_long": self._too_long,
            "tokens": tokens,
            "beam_size": decoding.beam_size,
            "batch_size": decoding.batch_size,
            "length_penalty": decoding.length_penalty,
            **origin(trained, policy, decoding),
        }
