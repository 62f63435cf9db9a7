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
from pathlib import Path
from typing import Any, NamedTuple, get_args

from absl import flags

from benchmarks.measure import Timed, check_output, interleaved, machine, rate, write_lines
from benchmarks.plot import draw_quality_against_time
from dat_jax.command_line import define_workdir, run
from dat_jax.config import Config
from dat_jax.data.dataset import open_dataset
from dat_jax.decoding.translate import Translations, Translator
from dat_jax.evaluation import score
from dat_jax.exits.policies import parse_policy
from dat_jax.report import format_table
from dat_jax.summary import Tally
from dat_jax.tuned import Kind, load_front
from dat_jax.workdir import TrainedModel, load


class Candidate(NamedTuple):
    """A model with a policy, of some family of the plot."""

    family: str
    trained: TrainedModel
    translator: Translator

    def translate(self) -> Translations:
        """Translates the test set."""
        sources, _ = self.trained.dataset.text("test")
        return self.translator.translate(sources, self.family)


def candidates(workdir: Path, family: str, beam_size: int) -> list[Candidate]:
    """All that a workdir's model can do: its cuts at each depth, which are of that family, and what
    was tuned; by the engine that is faster for each."""
    config = Config.load(workdir / "config.json")
    trained = load(config, open_dataset(workdir), workdir)
    policies = {f"fixed:{depth}": family for depth in config.model.exit_depths}
    for kind in get_args(Kind):
        policies |= {point["policy"]: kind for point in load_front(workdir, kind)}
    made = []
    for text, name in policies.items():
        decoding = dataclasses.replace(
            config.decoding, policy=text, engine="continuous", beam_size=beam_size
        )
        policy = parse_policy(text, config.model)
        translator = Translator(trained.model, trained.params, trained.dataset, policy, decoding)
        made.append(Candidate(name, trained, translator))
    return made


def summarise(candidate: Candidate, timed: Timed[Translations]) -> dict[str, Any]:
    """Scores, costs and the measured speed of a candidate."""
    tally = Tally(candidate.trained, candidate.translator)
    tally.add(timed.outcome)
    summary = tally.summary()
    texts = [sentence.text for sentence in timed.outcome.sentences]
    scores = dataclasses.asdict(score(texts, candidate.trained.dataset.text("test")[1]))
    labels = {"benchmark": "quality", "family": candidate.family}
    layers = {"num_layers": candidate.trained.config.model.num_layers}
    speed = rate(summary["tokens"], timed.seconds)
    return labels | layers | scores | summary | speed | machine()


def main() -> None:
    """Measures everything, writes the lines and the plot, prints the table."""
    output, workdir = check_output(OUTPUT.value), Path(WORKDIR.value)
    every = candidates(workdir, "cut", BEAM_SIZE.value)
    for baseline in BASELINES.value:
        every += candidates(Path(baseline), "shallow", BEAM_SIZE.value)

    runs = [candidate.translate for candidate in every]
    timed = interleaved(runs, REPETITIONS.value, "quality")
    lines = [summarise(*both) for both in zip(every, timed, strict=True)]
    write_lines(output, lines)
    print(format_table(lines))
    draw_quality_against_time(lines, output.with_suffix(".svg"))


if __name__ == "__main__":
    WORKDIR = define_workdir()
    OUTPUT = flags.DEFINE_string("output", None, "A file of JSON lines to write.", required=True)
    BASELINES = flags.DEFINE_list("baselines", [], "Workdirs of shallower models.")
    BEAM_SIZE = flags.DEFINE_integer("beam_size", 1, "1 is greedy search.", 1)
    REPETITIONS = flags.DEFINE_integer("repetitions", 3, "Of each translation of the test set.", 1)
    run(main)
