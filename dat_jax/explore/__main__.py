# SPDX-License-Identifier: Apache-2.0
"""Shows where tokens exit, on one page: `python -m dat_jax.explore --workdir=W --output=page.html`.

The page shows sentences of the validation split, or of --input=FILE, with the exit of each token
and what every exit says of it; a slider tries one threshold on the references. It is one file that
needs no server and no network.
"""

import contextlib
import dataclasses
import itertools
import os
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from dat_jax.cli.command_line import define_checkpoints, define_path, define_workdir, run
from dat_jax.config import Config, DecodingConfig
from dat_jax.config.schema import require
from dat_jax.decoding.rule_settings import suited
from dat_jax.decoding.trained import TrainedModel
from dat_jax.evaluation.texts import TextConfig
from dat_jax.exits.parsing import Policy
from dat_jax.explore.collect import LOG_LIKELIHOOD, PROBABILITY, Sentence, collect
from dat_jax.explore.page import check_output, render, write
from dat_jax.runs.workdir import Run
from dat_jax.runtime.programs import keep_programs
from dat_jax.storage.version import __version__
from dat_jax.tuning.fronts import describe_misfit, policy_of_user, resolve_policy

_SENTENCES, _MOST = 100, 1_000


def main(argv: Sequence[str]) -> int:
    """Writes the page that `argv` asks for; returns the exit status."""
    options = flags.FlagValues()
    define_workdir(options)
    define_path(options, "output", "The page to write; an earlier one is replaced.")
    flags.DEFINE_string("input", "", "A file with one sentence per line, or -.", options)
    flags.DEFINE_string("reference", "", "The references of --input.", options)
    split = "The split to show without --input; choose thresholds on valid alone."
    flags.DEFINE_enum("split", "valid", ["valid", "test"], split, options)
    policy = "By which tokens of the translations exit, by default the run's."
    flags.DEFINE_string("policy", None, policy, options)
    count = (
        "Sentences to show, the first that are not blank. A page has 7 to 12 kB for each, and "
        "browsers slow down above a few hundred."
    )
    flags.DEFINE_integer("sentences", _SENTENCES, count, 1, _MOST, flag_values=options)
    flags.DEFINE_integer("beam_size", None, "By default the run's.", 1, flag_values=options)
    define_checkpoints(options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Checks everything first, then translates and writes the page."""
    keep_programs()
    workdir, output = Run(options.workdir), options.output
    config = workdir.config
    require(
        len(config.model.exit_depths) > 1,
        f"--workdir={workdir.path} has a model with one exit: train one with model.exits=all and "
        "several model.decoder_layers",
    )
    check_output(output)
    policy, decoding = _settings(options, config, workdir)
    sentences, total = _read(options, workdir)
    trained = workdir.load(options.average_checkpoints, options.checkpoint)
    if misfit := describe_misfit(policy.name, workdir, trained, decoding):
        print(f"warning: {misfit}", file=sys.stderr)
    shown = collect(trained, policy.rule, decoding, sentences)
    about = _about(options, trained, policy, decoding)
    page = render(f"Exits of {about['run']}", about | shown)
    write(output, page)
    of = f"{len(sentences):,} of {total:,} sentences" if total else f"{len(sentences):,} sentences"
    print(f"wrote {output}: {of}, {len(page.encode()) / 1e3:,.0f} kB")


def _settings(
    options: flags.FlagValues, config: Config, workdir: Run
) -> tuple[Policy, DecodingConfig]:
    """Returns the policy and the settings of the search."""
    beam_size = options.beam_size or config.decoding.beam_size
    decoding = dataclasses.replace(config.decoding, beam_size=beam_size)
    # A rule in a file runs if the command line names it, not if the workdir's config does.
    if options.policy is None:
        policy = resolve_policy(decoding.policy, config.model, workdir)
    else:
        policy = policy_of_user(options.policy, config.model, workdir)
    return policy, suited(decoding, policy.rule)


def _read(options: flags.FlagValues, workdir: Run) -> tuple[list[Sentence], int | None]:
    """Returns the sentences to show, and how many lines the text has, if that is known."""
    asked = TextConfig(options.split, options.input, options.reference, output="", resume=False)
    with contextlib.ExitStack() as stack:
        text = asked.open(workdir, stack)
        pairs = zip(text.lines, text.references or itertools.repeat(None), strict=False)
        numbered = (Sentence(n, *pair) for n, pair in enumerate(pairs, 1) if pair[0].strip())
        sentences = list(itertools.islice(numbered, options.sentences))
    place = f"--input={options.input}" if options.input else f"--split={options.split}"
    require(bool(sentences), f"{place} has only blank lines: put a sentence on each line")
    return sentences, text.total


def _about(
    options: flags.FlagValues, trained: TrainedModel, policy: Policy, decoding: DecodingConfig
) -> dict[str, Any]:
    """Returns what the page says of the run and of its numbers."""
    config = trained.config
    oracle = config.exit
    penalty, smoothing = oracle.exit_penalty, oracle.oracle_smoothing
    name = "standard input" if options.input == "-" else os.path.basename(options.input)
    return {
        "run": options.workdir.name,
        "version": __version__,
        "steps": trained.steps,
        "depths": config.model.decoder_layers,
        "policy": policy.label,
        "kind": policy.rule.kind,
        "beam_size": decoding.beam_size,
        "text": name or f"split {options.split}",
        "languages": [config.data.source_language, config.data.target_language],
        "oracle": f"{oracle.oracle}, exit penalty {penalty:g}, smoothing {smoothing:g}",
        "probability": PROBABILITY,
        "log_likelihood": LOG_LIKELIHOOD,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv))
