# SPDX-License-Identifier: Apache-2.0
"""Prepared data: vocabularies, token files, and the text of `valid` and `test`."""

import dataclasses
from pathlib import Path

from dat_jax.config import DataConfig
from dat_jax.config.schema import from_dict
from dat_jax.config.versions import read_settings
from dat_jax.data.integrity import check, damaged, prepared_splits, text_names, token_names
from dat_jax.data.tokens import Header, TokenFile, read_header
from dat_jax.data.vocabulary import Vocabularies, Vocabulary
from dat_jax.errors import UserError
from dat_jax.storage.stamped import write_stamped


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Prepared data; each part is read and checked on first use.

    Token files leave out blank, over-long and lopsided pairs; the text of `valid` and `test` has
    all.
    """

    config: DataConfig
    vocabularies: Vocabularies
    folder: Path

    def tokens(self, split: str) -> TokenFile:
        """Opens the token file of `train`, `valid` or `test`.

        Raises:
            UserError: it is missing, damaged, or encoded with other vocabularies, or the text has
                no `test`.
        """
        _check_has(self.folder, split)
        check(self.folder, *token_names(split))
        file = TokenFile(self.folder / split)
        if self.vocabularies.fingerprints != file.header.vocabularies:
            raise UserError(
                f"the vocabularies next to {self.folder} are not those of {file.folder}: restore "
                "them, or prepare the data again in another --workdir"
            )
        return file

    def text(self, split: str) -> tuple[list[str], list[str]]:
        """Returns the source sentences and the references of `valid` or `test`.

        Raises:
            UserError: a file is missing or damaged, or the text has no `test`.
        """
        return read_text(self.folder, split)

    def report(self) -> str:
        """Returns one line per split with its size and the number of pairs left out."""
        splits = prepared_splits(self.folder)
        return "\n".join(_report(split, self.tokens(split).header) for split in splits)


def open_dataset(folder: Path, vocabulary_folder: Path) -> Dataset:
    """Opens data that `prepare` wrote to these folders.

    Raises:
        UserError: nothing is prepared there, or a vocabulary is missing or damaged.
    """
    config = prepared_config(folder)
    if config is None:
        raise UserError(f"{folder} holds no prepared data: train a model or prepare the data")
    return Dataset(config, open_vocabularies(vocabulary_folder, config), folder)


def report_of(folder: Path) -> str:
    """Returns the report of a data folder from its headers alone, without checking the data.

    Raises:
        UserError: a header is missing or damaged.
    """
    splits = prepared_splits(folder)
    return "\n".join(_report(split, read_header(folder / split)) for split in splits)


def _check_has(folder: Path, split: str) -> None:
    if split not in (splits := prepared_splits(folder)):
        raise UserError(
            f"the data prepared in {folder} has no split {split}, only {' and '.join(splits)}, "
            "because its text has none: choose another split"
        )


def _report(split: str, header: Header) -> str:
    return (
        f"{split}: {header.pairs:,} pairs, {header.source_tokens:,} source and "
        f"{header.target_tokens:,} target tokens; left out {header.too_long:,} over-long, "
        f"{header.lopsided:,} lopsided and {header.blank:,} blank pairs"
    )


def open_vocabularies(folder: Path, config: DataConfig) -> Vocabularies:
    """Opens the vocabularies of source and target.

    Raises:
        UserError: one is missing or damaged.
    """
    forms = (config.source_normalization, config.target_normalization)
    paths = vocabulary_paths(folder, config)
    return Vocabularies(*(Vocabulary.load(*side) for side in zip(paths, forms, strict=True)))


def prepared_config(folder: Path) -> DataConfig | None:
    """Returns the config that `folder` was prepared with, or None if it is not fully prepared.

    Raises:
        UserError: its file is damaged, or of a later format.
    """
    path = folder / "config.json"
    if not path.exists():
        return None
    try:
        values, _, version = read_settings(path)
    except ValueError:
        raise damaged(path) from None
    try:
        return from_dict(DataConfig, values, "data.")
    except UserError as error:
        raise UserError(f"{path}, written by dat_jax {version}: {error}") from None


def write_config(folder: Path, config: DataConfig) -> None:
    """Marks `folder` as fully prepared with `config`."""
    write_stamped(folder / "config.json", dataclasses.asdict(config))


def vocabulary_paths(folder: Path, config: DataConfig) -> tuple[Path, Path]:
    """Returns the model files of source and target, the same file if joint."""
    if config.vocabulary == "joint":
        return folder / "joint.model", folder / "joint.model"
    return folder / "source.model", folder / "target.model"


def read_text(folder: Path, split: str) -> tuple[list[str], list[str]]:
    """Returns the source sentences and the references of `valid` or `test` in a data folder.

    Raises:
        UserError: a file is missing or damaged, or the text has no `test`.
    """
    _check_has(folder, split)
    names = text_names(split)
    check(folder, *names)
    sources, references = (_read_lines(folder / name) for name in names)
    return sources, references


def _read_lines(path: Path) -> list[str]:
    """Returns the lines of a file, split only at line feeds."""
    try:
        return path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise damaged(path) from None
