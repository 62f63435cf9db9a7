# SPDX-License-Identifier: Apache-2.0
"""Trains a translation model with an exit at each decoder block, from text to a table of scores.

    python train.py --config=configs/demo.py --workdir=runs/demo [--config.SECTION.KEY=VALUE ...]

Prepares the data if needed, starts or resumes training, then translates a split at each exit, by
default `valid`. `configs/base.py` explains every key.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial

import jax
from absl import flags

from dat_jax.cli.command_line import (
    define_config,
    define_processes,
    define_workdir,
    read_config,
    run,
)
from dat_jax.config import Config
from dat_jax.config.schema import require
from dat_jax.data.dataset import Dataset
from dat_jax.decoding.capacity import Capacity
from dat_jax.decoding.rule_settings import check_shortlist_size
from dat_jax.decoding.trained import TrainedModel
from dat_jax.decoding.translator import Translations
from dat_jax.errors import UserError
from dat_jax.evaluation.evaluate import evaluate
from dat_jax.evaluation.summary import Summary
from dat_jax.evaluation.tables import describe_cut, format_exits, format_table, wants_colour
from dat_jax.evaluation.validation_bleu import make_validation_bleu
from dat_jax.model.transformer import Transformer, count_parameters
from dat_jax.runs.compatibility import check_continues
from dat_jax.runs.warm_start import check_initial, initial_params
from dat_jax.runs.workdir import Run, make_model
from dat_jax.runtime.jax_flags import our_modes
from dat_jax.runtime.processes import by_first
from dat_jax.runtime.programs import keep_programs
from dat_jax.runtime.startup import together
from dat_jax.storage.files import write_text
from dat_jax.training.loop import train
from dat_jax.training.sharding import check_sharding
from dat_jax.tuning.fronts import front_of, resolve_policy, save_front, tuned_kinds
from dat_jax.tuning.search import tune

_SAMPLES = 3
_PARTS = {
    "source_embedding": "embeddings",
    "target_embedding": "embeddings",
    "classifiers": "heads",
    "exit_head": "heads",
}


def main(argv: Sequence[str]) -> int:
    """Trains and reports as `argv` says; returns the exit status."""
    options = flags.FlagValues()
    define_config(options, argv)
    define_workdir(options)
    define_processes(options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Checks the config, trains and reports, as the only writer of the workdir."""
    keep_programs()
    config, workdir = Config.from_dict(read_config(options)), Run(options.workdir)
    policies = {"decoding.policy": (config.decoding.policy,)}
    policies["decoding.report_policies, () for none"] = config.decoding.report_policies
    for key, texts in policies.items():
        for text in texts:
            try:
                tuned_kinds(text, config.model)
            except UserError as error:
                raise UserError(f"{key}: {error}") from None
    with (
        together(options.coordinator, options.num_processes, options.process_id),
        workdir.writing(),
    ):
        dataset = train_model(config, workdir)
        _report(workdir.load(), dataset, workdir)


@our_modes()
def train_model(config: Config, workdir: Run) -> Dataset:
    """Prepares the data, then starts or resumes training; returns the data.

    The caller must be the only writer of the workdir.

    Raises:
        UserError: the config does not fit the workdir, the data or the devices.
        Stopped: a signal stopped training; the last step is saved.
    """
    check_sharding(config.training.sharding, jax.device_count())
    check_shortlist_size(config.decoding, config.data.vocabulary_size)
    device = jax.local_devices()[0]
    by_first(lambda: Capacity.of(device, config.model, config.decoding).check())
    by_first(lambda: _prepare(config, workdir))
    dataset = workdir.dataset()
    print(dataset.report(), flush=True)

    started = time.monotonic()
    model = make_model(config, dataset.vocabularies)
    print(_describe_parameters(model), flush=True)
    initial = partial(initial_params, config, model, dataset.vocabularies)
    bleu = make_validation_bleu(config, model, dataset)
    trained = train(config, model, dataset, workdir.training_files, initial, bleu)
    best = f"; best checkpoint: {trained.best}" if trained.best else ""
    print(f"trained to step {trained.step:,} in {_minutes(started)}{best}", flush=True)
    return dataset


def _describe_parameters(model: Transformer) -> str:
    """Returns the number of parameters, in all and by part; shared tables count as embeddings."""
    counts, parts = count_parameters(model), Counter[str]()
    for part, count in counts.items():
        parts[_PARTS.get(part, part)] += count
    each = ", ".join(f"{part} {count:,}" for part, count in sorted(parts.items()))
    return f"parameters: {sum(counts.values()):,}; {each}"


def _prepare(config: Config, workdir: Run) -> None:
    """Checks the config against the workdir, then writes the data and the config into it."""
    check_continues(workdir, config)
    check_initial(workdir, config)
    split = config.decoding.report_split
    require(
        split in workdir.splits(config),
        f"decoding.report_split is {split}, which the text of data.source does not have: set it to "
        "valid, or add that text",
    )
    workdir.prepare(config)
    workdir.keep(config)


def _report(trained: TrainedModel, dataset: Dataset, workdir: Run) -> None:
    """Translates `report_split` with each fixed exit, the exit head and the report policies.

    Prints a table and sample translations with their exits; writes one JSON line per policy.
    """
    config, split = trained.config, trained.config.decoding.report_split
    fixed = [f"fixed:{depth}" for depth in config.model.exit_depths]
    head = [] if config.model.exit_head == "none" else [config.model.exit_head]
    adaptive = list(dict.fromkeys([*head, *config.decoding.report_policies]))
    for kind in dict.fromkeys(k for text in adaptive for k in tuned_kinds(text, config.model)):
        if not front_of(workdir, kind, trained, config.decoding):
            front = tune(trained, dataset, kind, config.decoding)
            by_first(partial(save_front, workdir, kind, front))

    summaries: list[Summary] = []
    outputs: dict[str, Translations] = {}
    for text in [*fixed, *adaptive]:
        policy = resolve_policy(text, config.model, workdir)
        outputs[text], summary = evaluate(trained, dataset, policy, config.decoding, split)
        summaries.append(summary)
    lines = "".join(json.dumps({"split": split} | summary) + "\n" for summary in summaries)
    by_first(lambda: write_text(workdir.evaluation, lines))

    if cut := summaries[0]["sentences_cut"]:
        print(describe_cut(cut, config.decoding.max_source_length))
    for line in outputs[fixed[0]].too_long:
        print(f"warning: {line}")
    print(f"\n{split}, beam {config.decoding.beam_size}, step {trained.steps[0]:,}")
    print(format_table(summaries))
    if split == "valid" and any(tuned_kinds(text, config.model) for text in adaptive):
        print("the thresholds of tuned policies were chosen on this split")
    _print_samples(trained, dataset, {text: outputs[text] for text in [*fixed[-1:], *adaptive]})


def _print_samples(
    trained: TrainedModel, dataset: Dataset, outputs: dict[str, Translations]
) -> None:
    """Prints some sentences and their translations, each piece followed by its exit."""
    sources, references = dataset.text(trained.config.decoding.report_split)
    num_layers, colour = trained.config.model.decoder_layers, wants_colour()
    width = max(map(len, ["reference", *outputs]))
    for index in range(min(_SAMPLES, len(sources))):
        print(f"\n{'source':{width}} {sources[index]}\n{'reference':{width}} {references[index]}")
        for text, translations in outputs.items():
            sentence = translations.sentences[index]
            exits = format_exits(sentence.pieces, sentence.exits, num_layers, colour=colour)
            print(f"{text:{width}} {exits}")


def _minutes(started: float) -> str:
    seconds = round(time.monotonic() - started)
    return f"{seconds // 60} min {seconds % 60:02d} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
