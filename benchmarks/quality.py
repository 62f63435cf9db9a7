# SPDX-License-Identifier: Apache-2.0
"""Quality against measured time on `test`: tuned exits beside every static cut and shallow model.

    python -m benchmarks.quality --workdir=WORKDIR --baselines=BASE1,BASE2 \\
        --output=results/NAME.jsonl

WORKDIR holds a model with exits whose thresholds were tuned on `valid` (`dat_jax.tuning`), each of
BASE1, BASE2 and so on a model with one exit and fewer layers. All decode `test` in turn, several
times, text to text: speeds are medians, and thresholds are not changed by what `test` says. A plot
goes beside the lines.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

from absl import flags

from benchmarks._timing import Timed, check_output, interleaved, machine, rate, write_lines
from benchmarks.plot import draw_quality_against_time
from dat_jax.command_line import define_path, define_workdir, run
from dat_jax.decoding.translator import Translations, Translator
from dat_jax.evaluation.scores import score, tokenizer_of
from dat_jax.evaluation.tables import format_table
from dat_jax.evaluation.tally import Tally
from dat_jax.exits.parsing import parse_policy
from dat_jax.paths import as_path
from dat_jax.tuning.fronts import Kind, load_front
from dat_jax.workdir import Run


class Candidate(NamedTuple):
    """A model with a policy, of some family of the plot."""

    family: str
    workdir: Run
    translator: Translator

    def translate(self) -> Translations:
        """Translates the test set."""
        sources, _ = self.workdir.text("test")
        return self.translator.translate(sources, self.family)


def candidates(workdir: Run, family: str, beam_size: int) -> list[Candidate]:
    """Candidates of a workdir's model: its cuts at each depth, which are of that family, and what
    was tuned; by the engine that is faster for each."""
    trained = workdir.load()
    config = trained.config
    policies = {f"fixed:{depth}": family for depth in config.model.exit_depths}
    for kind in get_args(Kind):
        policies |= {point["policy"]: kind for point in load_front(workdir, kind)}
    made = []
    for text, name in policies.items():
        decoding = dataclasses.replace(config.decoding, engine="auto", beam_size=beam_size)
        translator = Translator(trained, parse_policy(text, config.model), decoding)
        made.append(Candidate(name, workdir, translator))
    return made


def summarise(candidate: Candidate, timed: Timed[Translations]) -> dict[str, Any]:
    """Scores, costs and the measured speed of a candidate."""
    tally = Tally(candidate.translator)
    tally.add(timed.outcome)
    summary = tally.summary()
    texts = [sentence.text for sentence in timed.outcome.sentences]
    tokenizer = tokenizer_of(candidate.translator.trained.config, candidate.translator.decoding)
    scores = dataclasses.asdict(score(texts, candidate.workdir.text("test")[1], tokenizer))
    labels = {"benchmark": "quality", "family": candidate.family}
    layers = {"num_layers": candidate.translator.trained.config.model.decoder_layers}
    speed = rate(summary["tokens"], timed.seconds)
    return labels | layers | scores | summary | speed | machine()


def main(argv: Sequence[str]) -> int:
    """Measures as the command line says; returns the exit status."""
    options = flags.FlagValues()
    define_workdir(options)
    define_path(options, "output", "A file of JSON lines to write.")
    flags.DEFINE_list("baselines", [], "Workdirs of shallower models.", options)
    flags.DEFINE_integer("beam_size", 1, "1 is greedy search.", 1, flag_values=options)
    repetitions = "Of each translation of the test set."
    flags.DEFINE_integer("repetitions", 3, repetitions, 1, flag_values=options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Measures everything, writes the lines and the plot, prints the table."""
    output, workdir = check_output(options.output), Run(options.workdir)
    every = candidates(workdir, "cut", options.beam_size)
    for baseline in options.baselines:
        every += candidates(Run(as_path(baseline)), "shallow", options.beam_size)

    runs = [candidate.translate for candidate in every]
    timed = interleaved(runs, options.repetitions, "quality")
    lines = [summarise(*both) for both in zip(every, timed, strict=True)]
    write_lines(output, lines)
    print(format_table(lines))
    draw_quality_against_time(lines, output.with_suffix(".svg"))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
