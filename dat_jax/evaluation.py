# SPDX-License-Identifier: Apache-2.0
"""Translation quality as sacreBLEU measures it, on detokenised text, beside what it cost."""

import dataclasses
import hashlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from dat_jax import flops
from dat_jax.config import DecodingConfig
from dat_jax.decoding.translate import Translations, Translator
from dat_jax.errors import UserError
from dat_jax.exits.policies import Policy
from dat_jax.workdir import TrainedModel


@dataclasses.dataclass(frozen=True)
class Scores:
    """Corpus scores from 0 to 100, with the signatures that say how they were computed."""

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str


def check_lengths(sentences: int, references: int) -> None:
    """Makes sure that there is something to score, and one reference for each sentence.

    Raises:
        UserError: it is not so.
    """
    if sentences != references:
        raise UserError(
            f"{sentences} sentences but {references} references: "
            "give the reference file one line for each sentence"
        )
    if not sentences:
        raise UserError("no sentences to score: give an input of at least one line")


def score(hypotheses: Sequence[str], references: Sequence[str]) -> Scores:
    """Compares each hypothesis with the one reference on the same line.

    Raises:
        UserError: there are no lines, or not as many hypotheses as references.
    """
    check_lengths(len(hypotheses), len(references))
    bleu, chrf = BLEU(), CHRF()
    return Scores(
        bleu=bleu.corpus_score(hypotheses, [references]).score,
        bleu_signature=str(bleu.get_signature()),
        chrf=chrf.corpus_score(hypotheses, [references]).score,
        chrf_signature=str(chrf.get_signature()),
    )


def evaluate(
    trained: TrainedModel,
    policy: Policy,
    decoding: DecodingConfig,
    split: str,
    name: str | None = None,
) -> tuple[Translations, dict[str, Any]]:
    """Translates a split by a policy, scores it, and returns the translations and `summarise`.

    `policy` takes the place of that of `decoding`; `name` is how it was asked for.
    """
    decoding = dataclasses.replace(decoding, policy=name or str(policy))
    translator = Translator(trained.model, trained.params, trained.dataset, policy, decoding)
    sources, references = trained.dataset.text(split)
    translations = translator.translate(sources, f"{split}, {_name(translator)}")
    scores = score([sentence.text for sentence in translations.sentences], references)
    return translations, summarise(trained, translator, translations, scores)


def summarise(
    trained: TrainedModel,
    translator: Translator,
    translations: Translations,
    scores: Scores | None,
) -> dict[str, Any]:
    """All figures of one decoding run: what `summary.json` and the lines of `results/` hold.

    `average_exit`, `exit_histogram`, `flops_per_token` are taken over the tokens of the returned
    hypotheses, EOS counted. `layers_executed_per_token` counts what the engine really ran, other
    hypotheses of the beam and idle rows included, for each such token. `policy` is what
    `--config.policy` reads, `thresholds` what it came to.
    """
    config, decoding = trained.config, translator.decoding
    sentences = translations.sentences
    exits = np.concatenate([np.asarray(s.exits, np.int64) for s in sentences])
    tokens = max(len(exits), 1)
    total_flops = sum(
        flops.translation(
            config.model,
            trained.dataset.target_vocabulary.size,
            sentence.source_length,
            np.asarray(sentence.exits, np.int64),
            translator.policy.signal,
        )
        for sentence in sentences
    )
    histogram = np.bincount(exits, minlength=config.model.num_layers + 1)
    return (dataclasses.asdict(scores) if scores else {}) | {
        "average_exit": float(exits.sum() / tokens),
        "exit_histogram": {d: int(histogram[d]) for d in config.model.exit_depths},
        "flops_per_token": total_flops / tokens,
        "layers_executed_per_token": translations.layer_rows / tokens,
        "tokens_per_second": len(exits) / translations.seconds,
        "seconds": translations.seconds,
        "sentences": len(sentences),
        "sentences_cut": translations.cut,
        "tokens": len(exits),
        "engine": decoding.engine,
        "policy": _name(translator),
        "thresholds": getattr(translator.policy, "thresholds", None),
        "beam_size": decoding.beam_size,
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


def _name(translator: Translator) -> str:
    """The policy as it was asked for if it was tuned, and otherwise in full."""
    requested = translator.decoding.policy
    return requested if requested.startswith("tuned:") else str(translator.policy)


def describe_device(trained: TrainedModel) -> str:
    """The kind and number of the devices that hold the model."""
    devices = list(jax.tree.leaves(trained.params)[0].devices())
    return f"{len(devices)} x {devices[0].device_kind}"


def describe_commit() -> str:
    """The commit of the checkout that this file is part of, with `-dirty` if it was changed."""
    root = Path(__file__).parent.parent
    command = ["git", f"--git-dir={root / '.git'}", f"--work-tree={root}"]
    command += ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write_results(folder: Path, translations: Translations, summary: dict[str, Any]) -> None:
    """Writes `hypotheses.txt`, `exits.jsonl` (each line's tokens and exits) and `summary.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "hypotheses.txt").open("w", encoding="utf-8", newline="\n") as hypotheses,
        (folder / "exits.jsonl").open("w", encoding="utf-8", newline="\n") as exits,
    ):
        for sentence in translations.sentences:
            hypotheses.write(sentence.text + "\n")
            line = {
                "tokens": sentence.pieces,
                "exits": sentence.exits,
                "score": sentence.score,
            }
            exits.write(json.dumps(line, ensure_ascii=False) + "\n")
    text = json.dumps(summary, indent=2, ensure_ascii=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
