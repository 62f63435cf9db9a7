# SPDX-License-Identifier: Apache-2.0
"""Translates a split, a file or standard input with a trained model.

    python decode.py --workdir=runs/demo --config.policy=fixed:3 --config.beam_size=5
    echo "am dreiundzwanzigsten November" | python decode.py --workdir=runs/demo --config.input=-

Prints scores if there are references. `configs/decode.py` explains every key.
"""

import contextlib
import dataclasses
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from absl import flags

from dat_jax.cli.command_line import (
    define_config,
    define_processes,
    define_workdir,
    read_config,
    run,
)
from dat_jax.cli.streams import deliver, has_reader
from dat_jax.config import Config, DecodingConfig
from dat_jax.config.schema import from_dict, require
from dat_jax.decoding.inputs import read_n_best
from dat_jax.decoding.next_tokens import suited
from dat_jax.decoding.translator import Translator
from dat_jax.evaluation import formats
from dat_jax.evaluation.pipeline import contents_of, translate
from dat_jax.evaluation.results import EXITS, HYPOTHESES, N_BEST, SUMMARY, ResultsWriter
from dat_jax.evaluation.summary import Summary
from dat_jax.evaluation.tables import describe_cut, format_table
from dat_jax.evaluation.texts import Text, TextConfig
from dat_jax.runs.workdir import Run
from dat_jax.runtime.processes import by_first, count, is_first
from dat_jax.runtime.programs import keep_programs
from dat_jax.runtime.startup import together
from dat_jax.storage.paths import as_path, destination
from dat_jax.tuning.fronts import describe_misfit, resolve_policy

_CONFIG = Path(__file__).parent / "configs" / "decode.py"


def main(argv: Sequence[str]) -> int:
    """Translates as `argv` says; returns the exit status."""
    options = flags.FlagValues()
    define_config(options, argv, default=str(_CONFIG))
    define_workdir(options)
    define_processes(options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Connects to the other processes, if there are any, and decodes."""
    keep_programs()
    with together(options.coordinator, options.num_processes, options.process_id):
        _decode(options)


def _decode(options: flags.FlagValues) -> None:
    """Checks everything first, then translates lines as they are read."""
    workdir = Run(options.workdir)
    config = workdir.config
    asked, decoding, given = _settings(config, read_config(options))
    policy = resolve_policy(decoding.policy, config.model, workdir)
    decoding = dataclasses.replace(decoding, policy=policy.name)
    if "shortlist" not in given:
        decoding = suited(decoding, policy.rule)
    with contextlib.ExitStack() as stack:
        by_one = f"input is {asked.input}, which only one process can read: use a file instead"
        require(count() == 1 or asked.input != "-", by_one)
        text = asked.open(workdir, stack)
        require(count() == 1 or text.sha256 is not None, by_one)
        writer, folder = None, _output_folder(asked, workdir, decoding)
        closed = "standard output is closed: set --config.output to a folder for the translations"
        require(folder is not None or has_reader(), closed)
        if folder and is_first():
            request = _request(asked, workdir, decoding, folder)
            writer = ResultsWriter(folder, request, asked.resume, _names(asked))
        by_first(lambda: _enter(writer, stack))
        trained = workdir.load(given.get("average_checkpoints"))
        translator = Translator(trained, policy, decoding, asked.n_best)
        if by_first(lambda: _begin(writer, translator, text) and asked.resume):
            if is_first():
                print(f"{folder} is finished: nothing is left to do", file=sys.stderr)
            return
        misfit = describe_misfit(policy.name, workdir, trained, decoding)
        if misfit and is_first():
            print(f"warning: {misfit}", file=sys.stderr)
        summary = translate(translator, text, writer, _echo(asked, folder), _shown(asked))
    if is_first():
        _tell(summary, translator, text, folder, asked)


def _tell(
    summary: Summary,
    translator: Translator,
    text: Text,
    folder: Path | None,
    asked: TextConfig,
) -> None:
    """Prints the folder of the results, warnings, and a table of scores unless translations were
    printed without references."""
    if folder:
        print(f"wrote {folder}/{', '.join(_names(asked))} and {SUMMARY}", file=sys.stderr)
    for remark in _remarks(summary, translator):
        print(remark, file=sys.stderr)
    if not asked.arrives or text.references is not None:
        print(format_table([summary]), file=sys.stderr if asked.arrives else sys.stdout)


def _enter(writer: ResultsWriter | None, stack: contextlib.ExitStack) -> None:
    """Locks the folder of results, if there is one, until `stack` ends."""
    if writer:
        stack.enter_context(writer)


def _begin(writer: ResultsWriter | None, translator: Translator, text: Text) -> bool:
    """Begins to write, if there is a writer; returns whether finished results already exist."""
    return writer is not None and writer.begin(contents_of(translator, text))


def _echo(asked: TextConfig, folder: Path | None) -> Callable[[str], None] | None:
    """Returns the function that prints translations of a stream, or None for other input.

    If they also go to a folder, the work goes on when the reader leaves.
    """
    if not asked.arrives:
        return None
    return partial(print, flush=True) if folder else deliver


def _shown(asked: TextConfig) -> formats.Form:
    """Returns the form in which translations of a stream are printed."""
    if asked.format == "jsonl":
        return formats.whole
    return formats.n_best_list if asked.n_best else formats.text


def _names(asked: TextConfig) -> tuple[str, ...]:
    """Returns the files of results besides the summary."""
    return (HYPOTHESES, EXITS, N_BEST) if asked.n_best else (HYPOTHESES, EXITS)


def _remarks(summary: Summary, translator: Translator) -> Iterator[str]:
    """Yields warnings about the results."""
    if cut := summary["sentences_cut"]:
        yield f"warning: {describe_cut(cut, translator.decoding.max_source_length)}"


def _settings(
    config: Config, values: dict[str, Any]
) -> tuple[TextConfig, DecodingConfig, dict[str, Any]]:
    """Returns settings of text and search, and the keys of the search that were given."""
    text_keys = [field.name for field in dataclasses.fields(TextConfig)]
    text = from_dict(TextConfig, {key: values.pop(key) for key in text_keys if key in values})
    given = {key: value for key, value in values.items() if value is not None}
    decoding = from_dict(DecodingConfig, dataclasses.asdict(config.decoding) | given)
    n_best = read_n_best(text.n_best, decoding.beam_size)
    return dataclasses.replace(text, n_best=n_best), decoding, given


def _output_folder(asked: TextConfig, workdir: Run, decoding: DecodingConfig) -> Path | None:
    """Returns the folder for the results: `output`, or one named after the request, or None."""
    if asked.output:
        return as_path(asked.output)
    if asked.arrives:
        return None
    name = asked.split
    if asked.input:
        place = os.fsencode(destination(asked.input))
        name = f"{as_path(asked.input).name}-{hashlib.sha256(place).hexdigest()[:8]}"
    folder = workdir.decoded(name, decoding)
    return folder.with_name(f"{folder.name}-n_best={asked.n_best}") if asked.n_best else folder


def _request(
    asked: TextConfig, workdir: Run, decoding: DecodingConfig, folder: Path
) -> dict[str, Any]:
    """Returns what results depend on besides training: the model's path, the text, the settings.

    The workdir's path is relative to the results, so both can be moved together.
    """
    places = [os.path.realpath(path) for path in (workdir.path, folder)]
    settings = dataclasses.asdict(decoding)
    del settings["report_policies"]
    lists = {"n_best": asked.n_best} if asked.n_best else {}
    return {"workdir": os.path.relpath(*places)} | asked.places | settings | lists


if __name__ == "__main__":
    sys.exit(main(sys.argv))
