# SPDX-License-Identifier: Apache-2.0
"""Prepares training data from text, once, in two folders:

VOCABULARY/joint.model             or source.model and target.model; trained, or given
DATA/{train,valid,test}/           token files; of `test` only if the source has it
DATA/{valid,test}.{src,tgt}        the text, for inputs and references
DATA/checksums.json                of all these, and of the source text files
DATA/config.json                   written last
"""

import contextlib
import dataclasses
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from dat_jax.config import DataConfig
from dat_jax.config.data import PATHS
from dat_jax.data.dataset import (
    Dataset,
    open_dataset,
    open_vocabularies,
    prepared_config,
    vocabulary_paths,
    write_config,
)
from dat_jax.data.given import check_given, read_given
from dat_jax.data.integrity import (
    check_and_renew,
    is_source,
    keep_checksums,
    prepared_splits,
    replace_source,
    source_checksums,
    text_names,
)
from dat_jax.data.normalization import normalizer
from dat_jax.data.sources import Source, open_source, same_source, settled
from dat_jax.data.tokens import Limits, write_tokens
from dat_jax.data.vocabulary import SizeError, Vocabularies, train_vocabulary
from dat_jax.errors import UserError
from dat_jax.storage.paths import same_destination

Pairs = Iterable[tuple[str, str]]

_MOST_PAIRS = 500_000  # for training vocabularies


def prepare(config: DataConfig, folder: Path, vocabulary_folder: Path) -> Dataset:
    """Writes vocabularies and token files to these folders, or opens them if they exist.

    Raises:
        UserError: the text or a given vocabulary cannot be read or does not fit the config,
            `folder` was prepared with another config or from files that have changed since, or the
            prepared data is damaged.
    """
    prepared = check_same(config, folder)
    if prepared is None:
        _write(config, folder, vocabulary_folder)
    elif not same_source(prepared.source, config.source):  # the text has moved
        replace_source(folder, open_source(config).files)
        write_config(folder, settled(config))
    check_given(config, vocabulary_folder)
    check_and_renew(folder)
    return open_dataset(folder, vocabulary_folder)


def splits_of(config: DataConfig, folder: Path) -> Sequence[str]:
    """Returns the splits of the data in `folder`, or of the source if it is not prepared yet.

    Raises:
        UserError: the source cannot be opened.
    """
    if not config.prepared and prepared_config(folder) is None:
        return open_source(config).splits
    return prepared_splits(folder)


def check_same(
    config: DataConfig, folder: Path, way_out: str = "give another --workdir"
) -> DataConfig | None:
    """Checks that a folder is not prepared yet, or holds the data of `config`.

    Args:
        config: the settings; its `prepared` is ignored, as it names a place and not the data.
        folder: the folder.
        way_out: how to fix a difference, for the message.

    Returns:
        The config that it was prepared with, whose text folder may have another path; or None.

    Raises:
        UserError: it holds other data.
    """
    prepared = prepared_config(folder)
    if prepared is None:
        return None
    for field in dataclasses.fields(DataConfig):
        before, now = getattr(prepared, field.name), getattr(config, field.name)
        is_path = field.name in PATHS and before and now
        if field.name == "prepared" or before == now or (is_path and same_destination(before, now)):
            continue
        if field.name != "source" or _differs(prepared, config, folder):
            raise UserError(
                f"{folder} was prepared with data.{field.name} = {before!r}, not {now!r}: {way_out}"
            )
    return prepared


def _differs(prepared: DataConfig, config: DataConfig, folder: Path) -> bool:
    """Returns whether `data.source` names another source, rather than a new path of the same text.

    Raises:
        UserError: it names a new path of a text, but the text there is missing or differs.
    """
    before, now = prepared.source, config.source
    if same_source(before, now):
        return False
    if not before.startswith("text:") or not now.startswith("text:"):
        return True
    try:
        if is_source(folder, open_source(config).files):
            return False
        reason = "the text there differs"
    except UserError:
        reason = "the text is not there"
    raise UserError(
        f"{folder} was prepared from data.source = {before!r}, not {now!r}, and {reason}: give the "
        "former path, even if the text is gone, or another --workdir"
    )


def _write(config: DataConfig, folder: Path, vocabulary_folder: Path) -> None:
    given = read_given(config, vocabulary_folder)
    source = open_source(config)
    checksums = source_checksums(source.files)
    long = ("train", "valid") if config.valid_every else ("train",)
    for split in source.splits:  # errors in short ones should show before the long work
        for _ in source.pairs(split) if split not in long else ():
            pass
    folder.mkdir(parents=True, exist_ok=True)
    vocabularies = _make_vocabularies(config, source, vocabulary_folder, given)
    limits = Limits(config.max_length, config.max_length_ratio)
    for split in source.splits:
        with contextlib.ExitStack() as stack:
            pairs = _watched(source.pairs(split), f"{split} tokens")
            if split != "train":
                paths = [folder / name for name in text_names(split)]
                pairs = _copied(pairs, paths, stack)
            write_tokens(folder / split, pairs, vocabularies, limits)
    keep_checksums(folder, source.splits, checksums)
    write_config(folder, settled(config))


def _make_vocabularies(
    config: DataConfig, source: Source, folder: Path, given: Mapping[Path, bytes]
) -> Vocabularies:
    """Writes the vocabularies: the models that are given for their paths, or, without one, trained
    on the training split.

    Raises:
        UserError: the text does not allow that size; the message names one that both sides allow.
    """
    paths = vocabulary_paths(folder, config)
    sides = ((0, 1),) if config.vocabulary == "joint" else ((0,), (1,))
    forms = (config.source_normalization, config.target_normalization)
    normalize = tuple(map(normalizer, forms))
    folder.mkdir(parents=True, exist_ok=True)
    refused: list[SizeError] = []
    for path, used in zip(dict.fromkeys(paths), sides, strict=True):
        if path in given:
            path.write_bytes(given[path])
            continue
        pairs = _sample(_watched(source.pairs("train"), f"{path.stem} vocabulary"))
        sentences = (normalize[side](pair[side]) for pair in pairs for side in used)
        try:
            path.write_bytes(train_vocabulary(sentences, config.vocabulary_size, config.pieces))
        except SizeError as error:
            refused.append(error)
    if refused:
        raise _strictest(refused)
    return open_vocabularies(folder, config)


def _strictest(errors: Sequence[SizeError]) -> UserError:
    """Returns the error whose suggested size suits both sides."""
    too_large = [error for error in errors if error.at_most is not None]
    too_small = [error for error in errors if error.at_least is not None]
    if too_large and too_small:
        return UserError(
            f"{too_large[0]}; the other side needs {too_small[0].at_least} or more: set "
            "data.vocabulary to joint"
        )
    if too_large:
        return min(too_large, key=lambda error: error.at_most or 0)
    return max(too_small, key=lambda error: error.at_least or 0)


def _sample(pairs: Pairs) -> Iterator[tuple[str, str]]:
    """Yields all pairs, or a uniform sample of `_MOST_PAIRS` (reservoir sampling).

    Holds only the sample in memory, and frees pairs as they are used.
    """
    kept, generator = list[tuple[str, str]](), random.Random(0)
    for number, pair in enumerate(pairs):
        if number < _MOST_PAIRS:
            kept.append(pair)
        elif (place := generator.randrange(number + 1)) < _MOST_PAIRS:
            kept[place] = pair
    kept.reverse()
    while kept:
        yield kept.pop()


def _watched(pairs: Pairs, task: str) -> Iterator[tuple[str, str]]:
    """Yields `pairs` and shows a progress bar on a terminal."""
    yield from tqdm(pairs, desc=task, unit=" pairs", disable=not sys.stderr.isatty())


def _copied(pairs: Pairs, paths: Sequence[Path], stack: contextlib.ExitStack) -> Pairs:
    """Yields `pairs` and writes their text to two files."""
    source_file, target_file = (stack.enter_context(path.open("wb")) for path in paths)
    for source, target in pairs:
        source_file.write(f"{source}\n".encode())
        target_file.write(f"{target}\n".encode())
        yield source, target
