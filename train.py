# SPDX-License-Identifier: Apache-2.0
"""Trains a translation model with an exit at each decoder block, from text to a table of scores.

    python train.py --config=configs/demo.py --workdir=runs/demo [--config.SECTION.KEY=VALUE ...]

Prepares the data if that has not been done, trains or goes on training, then translates the test
split at each exit. `configs/base.py` explains every key.
"""

import json
import time
from pathlib import Path
from typing import Any

from dat_jax.command_line import define_config, define_workdir, read_config, run
from dat_jax.config import Config
from dat_jax.data.prepare import prepare
from dat_jax.decoding.translate import Translations, Translator
from dat_jax.evaluation import score, summarise
from dat_jax.exits.policies import Fixed, parse_policy
from dat_jax.report import format_table
from dat_jax.training.loop import train
from dat_jax.workdir import TrainedModel, check_same_run, load, make_model

CONFIG = define_config()
WORKDIR = define_workdir()
_SAMPLES = 3


def main() -> None:
    """Checks the config, then does all of it."""
    config = Config.from_dict(read_config(CONFIG))
    parse_policy(config.decoding.policy, config.model.exit_depths)
    workdir = Path(WORKDIR.value)
    check_same_run(config, workdir)
    dataset = prepare(config.data, workdir)
    config.save(workdir / "config.json")
    print(dataset.report(), flush=True)

    started = time.monotonic()
    train(config, make_model(config, dataset), dataset, workdir)
    print(f"trained to step {config.training.steps:,} in {_minutes(started)}", flush=True)

    evaluate(load(config, dataset, workdir), workdir)


def evaluate(trained: TrainedModel, workdir: Path) -> None:
    """Translates the test split at each exit; prints a table, keeps `evaluation.jsonl`."""
    config = trained.config
    sources, references = trained.dataset.text("test")
    summaries: list[dict[str, Any]] = []
    outputs: dict[int, Translations] = {}
    for depth in config.model.exit_depths:
        translator = Translator(
            trained.model, trained.params, trained.dataset, Fixed(depth), config.decoding
        )
        outputs[depth] = translator.translate(sources, f"test, exit {depth}")
        scores = score([sentence.text for sentence in outputs[depth].sentences], references)
        summaries.append(summarise(trained, translator, outputs[depth], scores))
    lines = "".join(json.dumps(summary) + "\n" for summary in summaries)
    (workdir / "evaluation.jsonl").write_text(lines, encoding="utf-8")

    if cut := summaries[0]["sentences_cut"]:
        print(f"{cut} sources are longer than {config.data.max_length} pieces and were cut there")
    print(f"\ntest, beam {config.decoding.beam_size}, step {trained.steps[0]:,}")
    print(format_table(summaries))
    for index in range(min(_SAMPLES, len(sources))):
        print(f"\nsource     {sources[index]}\nreference  {references[index]}")
        for depth in (config.model.exit_depths[0], config.model.exit_depths[-1]):
            print(f"exit {depth:<5} {outputs[depth].sentences[index].text}")


def _minutes(started: float) -> str:
    seconds = round(time.monotonic() - started)
    return f"{seconds // 60} min {seconds % 60:02d} s"


if __name__ == "__main__":
    run(main)
