# SPDX-License-Identifier: Apache-2.0
"""Translates with a trained model: a split of its data, a file, or standard input.

    python decode.py --workdir=runs/demo --config.policy=fixed:3 --config.beam_size=5
    echo "am dreiundzwanzigsten November" | python decode.py --workdir=runs/demo --config.input=-

Prints scores where there is a reference; `configs/decode.py` explains every key.
"""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from absl import flags

from dat_jax.command_line import define_config, define_workdir, read_config, run
from dat_jax.config import Config, DecodingConfig
from dat_jax.data.sources.text import read_lines
from dat_jax.decoding.sizing import is_deep, platform_of
from dat_jax.decoding.translator import Translator
from dat_jax.errors import UserError
from dat_jax.evaluation.results import ResultsWriter
from dat_jax.evaluation.scores import check_lengths, score, tokenizer_of
from dat_jax.evaluation.tables import describe_cut, describe_depth, format_table
from dat_jax.evaluation.tally import Tally
from dat_jax.schema import from_dict, require
from dat_jax.tuning.fronts import describe_misfit, resolve_policy
from dat_jax.workdir import Run

_CONFIG = Path(__file__).parent / "configs" / "decode.py"


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The text to translate, its references, and the folder for the results."""

    split: Literal["valid", "test"]
    input: str
    reference: str
    output: str

    def __post_init__(self) -> None:
        require(
            bool(self.input) or not self.reference,
            "reference is set and input is not: a split has its own references",
        )


def main(argv: Sequence[str]) -> int:
    """Translates as the command line says; returns the exit status."""
    options = flags.FlagValues()
    define_config(options, argv, default=str(_CONFIG))
    define_workdir(options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Reads and checks everything, and only then translates, lines as they are read."""
    workdir = Run(Path(options.workdir))
    config = workdir.config
    text, decoding, average = _settings(config, read_config(options))
    policy = resolve_policy(decoding.policy, config.model, workdir)
    sources, references, total = _read(text, workdir)
    trained = workdir.load(average)
    folder = _output_folder(text, workdir, policy.name, decoding.beam_size)

    if misfit := describe_misfit(policy.name, workdir, trained, decoding):
        print(f"warning: {misfit}", file=sys.stderr)
    translator, tokenizer = Translator(trained, policy, decoding), tokenizer_of(config, decoding)
    tally, hypotheses = Tally(translator), []
    with ResultsWriter(folder) if folder else nullcontext() as writer:
        for translations in translator.stream(sources, total=total):
            tally.add(translations)
            texts = [sentence.text for sentence in translations.sentences]
            if writer:
                writer.add(translations)
            if references is not None:
                hypotheses += texts
            if text.input == "-":
                print(*texts, sep="\n", flush=True)
        summary = tally.summary()
        if references is not None:
            summary = dataclasses.asdict(score(hypotheses, references, tokenizer)) | summary
        if writer:
            writer.finish(summary)
            print(f"wrote {folder}/hypotheses.txt, exits.jsonl and summary.json", file=sys.stderr)
    for remark in _remarks(summary, translator):
        print(remark, file=sys.stderr)
    if text.input != "-" or references is not None:
        print(format_table([summary]), file=sys.stderr if text.input == "-" else sys.stdout)


def _remarks(summary: dict[str, Any], translator: Translator) -> Iterator[str]:
    """Yields what the user should know beside the figures."""
    config = translator.trained.config
    if cut := summary["sentences_cut"]:
        yield f"warning: {describe_cut(cut, translator.decoding.max_source_length)}"
    depth, num_layers = summary["average_exit"], config.model.decoder_layers
    platform = platform_of(translator.trained.device.platform)
    if "continuous" in summary["engines"] and is_deep(depth / num_layers, platform):
        yield f"note: {describe_depth(depth, num_layers)}"


def _settings(
    config: Config, values: dict[str, Any]
) -> tuple[TextConfig, DecodingConfig, int | None]:
    """Settings of text and search, and how many checkpoints to average if that was asked for."""
    text_keys = [field.name for field in dataclasses.fields(TextConfig)]
    text = from_dict(TextConfig, {key: values.pop(key) for key in text_keys if key in values})
    given = {key: value for key, value in values.items() if value is not None}
    decoding = from_dict(DecodingConfig, dataclasses.asdict(config.decoding) | given)
    return text, decoding, given.get("average_checkpoints")


def _read(text: TextConfig, workdir: Run) -> tuple[Iterable[str], list[str] | None, int | None]:
    """The lines to translate, their references if there are any, and how many if that is known."""
    if not text.input:
        sources, references = workdir.text(text.split)
        return sources, references, len(sources)
    references = list(_lines(text.reference)) if text.reference else None
    if text.input != "-":
        lines, total = _lines(text.input), sum(1 for _ in _lines(text.input))
    elif references is None:
        return _lines("-"), None, None
    else:
        lines = list(_lines("-"))
        total = len(lines)
    if references is not None:
        check_lengths(total, len(references))
    return lines, references, total


def _lines(name: str) -> Iterator[str]:
    """The lines of a file, or of standard input, as they are read; at least one."""
    try:
        with sys.stdin.buffer if name == "-" else Path(name).open("rb") as file:
            lines = read_lines(file)
            first = next(lines, None)
            if first is None:
                raise UserError(f"{name} is empty: put one sentence on each line")
            yield first
            yield from lines
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}: name a file of one sentence a line") from None


def _output_folder(text: TextConfig, workdir: Run, policy: str, beam_size: int) -> Path | None:
    if text.output:
        return Path(text.output)
    if text.input == "-":
        return None
    return workdir.decoded(Path(text.input).name or text.split, policy, beam_size)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
