# SPDX-License-Identifier: Apache-2.0
"""Translates a split, a file or standard input with a trained model, or scores translations.

    python decode.py --workdir=runs/demo --config.policy=fixed:3 --config.beam_size=5
    echo "am dreiundzwanzigsten November" | python decode.py --workdir=runs/demo --config.input=-
    python decode.py --workdir=runs/demo --config.input=FILE --config.score=TRANSLATIONS

Prints scores if there are references. `configs/decode.py` explains every key.
"""

import contextlib
import dataclasses
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
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
from dat_jax.decoding.rule_settings import suited
from dat_jax.decoding.translator import Translator
from dat_jax.evaluation import formats
from dat_jax.evaluation.pipeline import contents_of, translate
from dat_jax.evaluation.results import (
    EXITS,
    HYPOTHESES,
    N_BEST,
    SCORES,
    SUMMARY,
    ResultsWriter,
)
from dat_jax.evaluation.scorer import Scorer
from dat_jax.evaluation.scoring import score
from dat_jax.evaluation.tables import describe_cut, format_scores, format_table
from dat_jax.evaluation.texts import Text, TextConfig
from dat_jax.runs.workdir import Run
from dat_jax.runtime.processes import by_first, count, is_first
from dat_jax.runtime.programs import keep_programs
from dat_jax.runtime.startup import together
from dat_jax.storage.paths import as_path, destination
from dat_jax.tuning.fronts import describe_misfit, policy_of_user, resolve_policy

Work = Translator | Scorer

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
    asked, decoding, given, checkpoint = _settings(config, read_config(options))
    if checkpoint:
        workdir.step_of(checkpoint, given.get("average_checkpoints"))  # raises if it is not there
    # A rule in a file runs if the command line names it, not if the workdir's config does.
    resolve = policy_of_user if "policy" in given else resolve_policy
    policy = resolve(decoding.policy, config.model, workdir)
    decoding = dataclasses.replace(decoding, policy=policy.label)
    decoding = suited(decoding, policy.rule, given)
    with contextlib.ExitStack() as stack:
        alone = "score is set, and only one process scores: start one"
        require(count() == 1 or not asked.score, alone)
        by_one = f"input is {asked.input}, which only one process can read: use a file instead"
        require(count() == 1 or asked.input != "-", by_one)
        text = asked.open(workdir, stack)
        require(count() == 1 or text.sha256 is not None, by_one)
        writer, folder = None, _output_folder(asked, workdir, decoding, checkpoint)
        closed = "standard output is closed: set --config.output to a folder for the translations"
        require(folder is not None or has_reader(), closed)
        if folder and is_first():
            request = _request(asked, workdir, decoding, checkpoint, folder)
            writer = ResultsWriter(folder, request, asked.resume, _names(asked))
        by_first(lambda: _enter(writer, stack))
        trained = workdir.load(given.get("average_checkpoints"), checkpoint or None)
        if asked.score:
            work: Work = Scorer(trained, policy, decoding)
        else:
            work = Translator(trained, policy, decoding, asked.n_best)
        if by_first(lambda: _begin(writer, work, text) and asked.resume):
            if is_first():
                print(f"{folder} is finished: nothing is left to do", file=sys.stderr)
            return
        misfit = describe_misfit(policy.name, workdir, trained, decoding)
        if misfit and is_first():
            print(f"warning: {misfit}", file=sys.stderr)
        cut, table = _work_through(work, text, writer, asked, _echo(asked, folder))
    if is_first():
        _tell(cut, table, folder, asked, decoding)


def _work_through(
    work: Work,
    text: Text,
    writer: ResultsWriter | None,
    asked: TextConfig,
    echo: Callable[[str], None] | None,
) -> tuple[int, str]:
    """Translates or scores a text; returns how many sources were cut, and a table of scores, empty
    for translations that were printed and have no references."""
    if isinstance(work, Scorer):
        scores = score(work, text, writer, echo)
        return scores["sentences_cut"], format_scores(scores)
    summary = translate(work, text, writer, echo, _shown(asked))
    is_scored = not asked.arrives or text.references is not None
    return summary["sentences_cut"], format_table([summary]) if is_scored else ""


def _tell(
    cut: int, table: str, folder: Path | None, asked: TextConfig, decoding: DecodingConfig
) -> None:
    """Prints the folder of the results, a warning if sources were cut, and the table, if any."""
    if folder:
        print(f"wrote {folder}/{', '.join(_names(asked))} and {SUMMARY}", file=sys.stderr)
    if cut:
        print(f"warning: {describe_cut(cut, decoding.max_source_length)}", file=sys.stderr)
    if table:
        print(table, file=sys.stderr if asked.arrives else sys.stdout)


def _enter(writer: ResultsWriter | None, stack: contextlib.ExitStack) -> None:
    """Locks the folder of results, if there is one, until `stack` ends."""
    if writer:
        stack.enter_context(writer)


def _begin(writer: ResultsWriter | None, work: Work, text: Text) -> bool:
    """Begins to write, if there is a writer; returns whether finished results already exist."""
    return writer is not None and writer.begin(contents_of(work, text))


def _echo(asked: TextConfig, folder: Path | None) -> Callable[[str], None] | None:
    """Returns the function that prints lines for a stream, or None for other input.

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
    if asked.score:
        return (SCORES,)
    return (HYPOTHESES, EXITS, N_BEST) if asked.n_best else (HYPOTHESES, EXITS)


def _settings(
    config: Config, values: dict[str, Any]
) -> tuple[TextConfig, DecodingConfig, dict[str, Any], str]:
    """Returns settings of text and search, the keys of the search that were given, and the
    checkpoint, empty if none was given."""
    checkpoint = values.pop("checkpoint", "")
    text_keys = [field.name for field in dataclasses.fields(TextConfig)]
    text = from_dict(TextConfig, {key: values.pop(key) for key in text_keys if key in values})
    given = {key: value for key, value in values.items() if value is not None}
    decoding = from_dict(DecodingConfig, dataclasses.asdict(config.decoding) | given)
    n_best = read_n_best(text.n_best, decoding.beam_size)
    return dataclasses.replace(text, n_best=n_best), decoding, given, checkpoint


def _output_folder(
    asked: TextConfig, workdir: Run, decoding: DecodingConfig, checkpoint: str
) -> Path | None:
    """Returns the folder for the results: `output`, or one named after the request, or None."""
    if asked.output:
        return as_path(asked.output)
    if asked.arrives:
        return None
    folder = workdir.decoded(_named(asked.input) if asked.input else asked.split, decoding)
    others = f"-n_best={asked.n_best}" if asked.n_best else ""
    others += f"-score={_named(asked.score)}" if asked.score else ""
    others += f"-checkpoint={checkpoint}" if checkpoint else ""
    return folder.with_name(folder.name + others)


def _named(file: str) -> str:
    """Returns a name for a file of any folder."""
    place = os.fsencode(destination(file))
    return f"{as_path(file).name}-{hashlib.sha256(place).hexdigest()[:8]}"


def _request(
    asked: TextConfig, workdir: Run, decoding: DecodingConfig, checkpoint: str, folder: Path
) -> dict[str, Any]:
    """Returns what results depend on besides training: the model's path, the text, the settings.

    The workdir's path is relative to the results, so both can be moved together.
    """
    places = [os.path.realpath(path) for path in (workdir.path, folder)]
    request = {"workdir": os.path.relpath(*places)} | asked.places
    request |= decoding.of_translations(checkpoint)
    return request | ({"n_best": asked.n_best} if asked.n_best else {})


if __name__ == "__main__":
    sys.exit(main(sys.argv))
