# SPDX-License-Identifier: Apache-2.0
"""Distills sequences (Kim and Rush, 2016): a text folder whose targets a trained model wrote.

    python -m dat_jax.distill --workdir=runs/teacher --output=DIR [--beam_size=5]
    python train.py --config=... --workdir=runs/student --config.data.source=text:DIR

DIR gets the training sentences of the teacher's source with its translations of them, by beam
search at its full depth, and valid and test unchanged. The same command resumes an interrupted run.
A student needs no `data.valid_every`: what the teacher held out is already in valid.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from dat_jax.cli.command_line import (
    define_checkpoints,
    define_path,
    define_workdir,
    given,
    run,
)
from dat_jax.config.schema import require
from dat_jax.data.sources import Source, open_source
from dat_jax.decoding.translator import Translator
from dat_jax.errors import UserError
from dat_jax.evaluation.pipeline import contents_of, translate
from dat_jax.evaluation.results import HYPOTHESES, ResultsWriter
from dat_jax.evaluation.texts import TextConfig
from dat_jax.runs.workdir import Run
from dat_jax.runtime.programs import keep_programs
from dat_jax.storage.files import LOCK, Unfinished, sole_writer, write_text
from dat_jax.tuning.fronts import policy_of_user

_TRANSLATED = "translated"  # the results, a folder inside the output
_REQUEST = "request.json"  # the settings of the run that began the folder


def main(argv: Sequence[str]) -> int:
    """Distills as the command line says; returns the exit status."""
    options = flags.FlagValues()
    define_workdir(options)
    define_path(options, "output", "The folder of the new text.")
    flags.DEFINE_string("policy", "fixed", "The exit policy of the teacher.", options)
    flags.DEFINE_integer("beam_size", None, "By default the run's.", 1, flag_values=options)
    define_checkpoints(options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Writes the text folder, the translations last."""
    keep_programs()
    workdir, folder = Run(options.workdir), options.output
    config = workdir.config
    policy = policy_of_user(options.policy, config.model, workdir)
    changes = given(options, "beam_size", "average_checkpoints")
    decoding = dataclasses.replace(config.decoding, policy=policy.label, **changes)
    checkpoints = options.average_checkpoints, options.checkpoint
    source = open_source(config.data)
    require(
        not any(path.parent.resolve() == folder.resolve() for path in source.files),
        f"--output={folder} holds the text that the model was trained on: name another folder",
    )
    request = {"workdir": os.path.relpath(workdir.path.resolve(), folder.resolve())}
    request |= decoding.of_translations(options.checkpoint)
    with sole_writer(folder):
        begun = _read_request(folder, request)
        translator = Translator(workdir.load(*checkpoints), policy, decoding)
        contents = {"text": _checksum(source), "model": translator.trained.sha256}
        _begin(folder, request, contents | {"policy": repr(policy.rule)}, begun)
        if (folder / _target("train")).exists():
            print(f"{folder} is finished: nothing is left to do", file=sys.stderr)
            return
        _write_text(source, folder)
        _translate(translator, workdir, folder, request)
    print(f"wrote {folder}: train a student with --config.data.source=text:{folder}")


def _checksum(source: Source) -> str:
    """Returns a checksum of the text that distilling reads from a source.

    Raises:
        UserError: the text cannot be read.
    """
    digest = hashlib.sha256()
    for split in source.splits:
        for pair in source.pairs(split):
            written = pair[:1] if split == "train" else pair
            digest.update("\n".join([split, *written, ""]).encode())
    return digest.hexdigest()


def _read_request(folder: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """Checks that a folder is empty or belongs to an unfinished or finished run of this request.

    Returns:
        The checksums of the text and the model that the earlier run used; None for an empty folder.

    Raises:
        UserError: the folder belongs to another request, or holds other files.
    """
    file = folder / _REQUEST
    if not file.exists():
        others = sorted(path.name for path in folder.iterdir() if path.name != LOCK)
        require(
            not others,
            f"--output={folder} holds {' '.join(others[:1])} already: name an empty folder",
        )
        return None
    try:
        begun = dict(json.loads(file.read_text(encoding="utf-8")))
        before = dict(begun.pop("contents", {}))
    except (ValueError, TypeError):
        raise UserError(f"{file} is damaged: name another folder") from None
    for key in request | begun:
        require(
            begun.get(key) == request.get(key),
            f"--output={folder} was begun with {key} = {begun.get(key)!r}, not "
            f"{request.get(key)!r}: name another folder",
        )
    return before


def _begin(
    folder: Path,
    request: dict[str, Any],
    contents: dict[str, str],
    begun: dict[str, Any] | None,
) -> None:
    """Saves the request in a new folder; in another, checks that text and model are the same.

    Raises:
        UserError: the text or the model has changed since the folder was begun.
    """
    if begun is None:
        values = request | {"contents": contents}
        write_text(folder / _REQUEST, json.dumps(values, indent=2) + "\n")
        return
    for key, value in contents.items():
        require(
            begun.get(key) == value,
            f"--output={folder} was begun with another {key} than it is now: name another folder",
        )


def _write_text(source: Source, folder: Path) -> None:
    """Writes the source's text without the training targets, unless it is there already.

    Raises:
        UserError: the text cannot be read.
    """
    if (folder / _source("train")).exists():
        return
    for split in (x for x in source.splits if x != "train"):
        _write(folder, {_source(split): 0, _target(split): 1}, source.pairs(split))
    pairs = tqdm(source.pairs("train"), "text", unit=" pairs", disable=not sys.stderr.isatty())
    _write(folder, {_source("train"): 0}, iter(pairs))


def _write(folder: Path, sides: dict[str, int], pairs: Iterator[tuple[str, str]]) -> None:
    """Writes sides of pairs to files; `sides` maps a file's name to 0 (source) or 1 (target)."""
    unfinished = Unfinished(*(folder / name for name in sides))
    with unfinished as files:
        for pair in pairs:
            for file, side in zip(files, sides.values(), strict=True):
                file.write(pair[side] + "\n")
        unfinished.finish()


def _translate(translator: Translator, workdir: Run, folder: Path, request: dict[str, Any]) -> None:
    """Translates the training sentences, resuming if possible, and writes the targets.

    Raises:
        UserError: the folder holds translations by another model or with other settings.
    """
    results, file = folder / _TRANSLATED, folder / _source("train")
    asked = TextConfig("test", str(file), reference="", output=str(results), resume=True)
    with contextlib.ExitStack() as stack:
        text = asked.open(workdir, stack)
        own = {"workdir": os.path.relpath(workdir.path.resolve(), results.resolve())}
        writer = stack.enter_context(ResultsWriter(results, request | own, resume=True))
        if not writer.begin(contents_of(translator, text)):
            translate(translator, text, writer)
    unfinished = Unfinished(folder / _target("train"))
    with (
        unfinished as (target,),
        (results / HYPOTHESES).open(encoding="utf-8", newline="\n") as lines,
    ):
        target.writelines(lines)
        unfinished.finish()


def _source(split: str) -> str:
    return f"{split}.src"


def _target(split: str) -> str:
    return f"{split}.tgt"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
