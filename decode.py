# SPDX-License-Identifier: Apache-2.0
"""Translates with a trained model: a split of its data, a file, or standard input.

    python decode.py --workdir=runs/demo --config.policy=fixed:3 --config.beam_size=5
    echo "am dreiundzwanzigsten November" | python decode.py --workdir=runs/demo --config.input=-

Prints scores where there is a reference; `configs/decode.py` explains every key.
"""

import dataclasses
import sys
from pathlib import Path

from dat_jax.command_line import define_config, define_workdir, read_config, run
from dat_jax.config import Config, DecodingConfig, TextConfig
from dat_jax.conversion import from_dict
from dat_jax.data.dataset import Dataset, open_dataset
from dat_jax.data.text import read_lines
from dat_jax.decoding.translate import Translator
from dat_jax.errors import UserError
from dat_jax.evaluation import check_lengths, score, summarise, write_results
from dat_jax.report import describe_cut, format_table
from dat_jax.tuned import resolve_policy
from dat_jax.workdir import load

CONFIG = define_config(default=str(Path(__file__).parent / "configs" / "decode.py"))
WORKDIR = define_workdir()


def main() -> None:
    """Reads and checks everything, and only then translates."""
    workdir = Path(WORKDIR.value)
    config = Config.load(workdir / "config.json")
    text, decoding, average = _settings(config)
    policy = resolve_policy(decoding.policy, config.model, workdir)
    dataset = open_dataset(workdir)
    sources, references = _read(text, dataset)
    trained = load(config, dataset, workdir, average)
    folder = _output_folder(text, workdir, f"{policy}-beam{decoding.beam_size}")
    if folder:
        folder.mkdir(parents=True, exist_ok=True)

    translator = Translator(trained.model, trained.params, dataset, policy, decoding)
    translations = translator.translate(sources)
    if translations.cut:
        print(f"warning: {describe_cut(translations.cut, config.data.max_length)}", file=sys.stderr)
    hypotheses = [sentence.text for sentence in translations.sentences]
    scores = None if references is None else score(hypotheses, references)
    summary = summarise(trained, translator, translations, scores)
    if folder:
        write_results(folder, translations, summary)
        print(f"wrote {folder}/hypotheses.txt, exits.jsonl and summary.json", file=sys.stderr)
    if text.input == "-":
        print(*hypotheses, sep="\n")
    if text.input != "-" or references is not None:
        print(format_table([summary]), file=sys.stderr if text.input == "-" else sys.stdout)


def _settings(config: Config) -> tuple[TextConfig, DecodingConfig, int | None]:
    """What to translate, how, and how many checkpoints to average if that was asked for."""
    values = read_config(CONFIG)
    text_keys = [field.name for field in dataclasses.fields(TextConfig)]
    text = from_dict(TextConfig, {key: values.pop(key) for key in text_keys if key in values})
    given = {key: value for key, value in values.items() if value is not None}
    decoding = from_dict(DecodingConfig, dataclasses.asdict(config.decoding) | given)
    return text, decoding, given.get("average_checkpoints")


def _read(text: TextConfig, dataset: Dataset) -> tuple[list[str], list[str] | None]:
    """The lines to translate, and their references if there are any."""
    if not text.input:
        return dataset.text(text.split)
    sources = _read_file(text.input)
    if not text.reference:
        return sources, None
    references = _read_file(text.reference)
    check_lengths(len(sources), len(references))
    return sources, references


def _read_file(name: str) -> list[str]:
    try:
        if name == "-":
            lines = list(read_lines(sys.stdin.buffer))
        else:
            with Path(name).open("rb") as file:
                lines = list(read_lines(file))
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}: name a file of one sentence a line") from None
    if not lines:
        raise UserError(f"{name} is empty: put one sentence on each line")
    return lines


def _output_folder(text: TextConfig, workdir: Path, name: str) -> Path | None:
    if text.output:
        return Path(text.output)
    if text.input == "-":
        return None
    what = Path(text.input).name or text.split
    return workdir / "decode" / f"{what}-{name.replace(':', '-')}"


if __name__ == "__main__":
    run(main)
