# SPDX-License-Identifier: Apache-2.0
"""All figures of one decoding run: what `summary.json` and the lines of `results/` hold."""

import dataclasses
import hashlib
import json
from collections import Counter
from typing import Any

import jax
import numpy as np

from dat_jax import flops
from dat_jax.decoding.translate import Translations, Translator
from dat_jax.decoding.work import describe, sum_work
from dat_jax.report import describe_commit
from dat_jax.workdir import TrainedModel


class Tally:
    """Sums over translations, however many there are."""

    def __init__(self, trained: TrainedModel, translator: Translator) -> None:
        self._trained, self._translator = trained, translator
        stages = trained.config.model.num_layers + 1
        self._histogram = np.zeros(stages, np.int64)
        self._work = sum_work(trained.config.model.num_layers, [])
        self._engines: Counter[str] = Counter()
        self._flops = self._sentences = self._cut = 0
        self._seconds = 0.0

    def add(self, translations: Translations) -> None:
        """Counts these too."""
        config = self._trained.config.model
        for sentence in translations.sentences:
            exits = np.asarray(sentence.exits, np.int64)
            self._histogram += np.bincount(exits, minlength=len(self._histogram))
            self._flops += flops.translation(
                config,
                self._trained.dataset.target_vocabulary.size,
                sentence.source_length,
                exits,
                self._translator.policy.signal,
            )
        self._work = sum_work(config.num_layers, [self._work, translations.work])
        self._engines += translations.engines
        self._sentences += len(translations.sentences)
        self._cut += translations.cut
        self._seconds += translations.seconds

    def summary(self) -> dict[str, Any]:
        """The figures.

        `average_exit`, `exit_histogram`, `flops_per_token` are taken over the tokens of the
        returned hypotheses, EOS counted. All else is what the engines ran, other hypotheses of the
        beam included: `ticks_per_stage` and `rows_per_stage` count runs of blocks 1 to N and of
        classifiers, and the rows that needed them; `occupancy` is their share of the rows that were
        computed; `layers_executed_per_token` is the blocks' rows that were computed, idle ones
        included, for each token. `engines` says how many sentences each engine decoded. `policy` is
        what `--config.policy` reads, `thresholds` what it came to.
        """
        trained, translator = self._trained, self._translator
        config, decoding = trained.config, translator.decoding
        tokens = int(self._histogram.sum())
        return {
            "average_exit": float(self._histogram @ np.arange(len(self._histogram)))
            / max(tokens, 1),
            "exit_histogram": {d: int(self._histogram[d]) for d in config.model.exit_depths},
            "flops_per_token": self._flops / max(tokens, 1),
            **describe(self._work, tokens),
            "tokens_per_second": tokens / self._seconds if self._seconds else 0.0,
            "seconds": self._seconds,
            "sentences": self._sentences,
            "sentences_cut": self._cut,
            "tokens": tokens,
            "engine": decoding.engine,
            "engines": dict(self._engines),
            "policy": describe_policy(translator),
            "thresholds": getattr(translator.policy, "thresholds", None),
            "beam_size": decoding.beam_size,
            "batch_size": decoding.batch_size,
            "length_penalty": decoding.length_penalty,
            "device": describe_device(trained),
            "checkpoint_step": trained.steps[0],
            "averaged_checkpoints": len(trained.steps),
            "seed": config.training.seed,
            "config_sha256": hashlib.sha256(
                json.dumps(dataclasses.asdict(config), sort_keys=True).encode()
            ).hexdigest(),
            "commit": describe_commit(),
        }


def describe_policy(translator: Translator) -> str:
    """The policy as it was asked for if it was tuned, and otherwise in full."""
    requested = translator.decoding.policy
    return requested if requested.startswith("tuned:") else str(translator.policy)


def describe_device(trained: TrainedModel) -> str:
    """The kind and number of the devices that hold the model."""
    devices = list(jax.tree.leaves(trained.params)[0].devices())
    return f"{len(devices)} x {devices[0].device_kind}"
