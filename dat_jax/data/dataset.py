# SPDX-License-Identifier: Apache-2.0
"""The prepared data of a workdir: vocabularies, token files, and the text of valid and test."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from dat_jax.config import DataConfig, write_text
from dat_jax.conversion import from_dict
from dat_jax.data.splits import SPLITS
from dat_jax.data.tokens import TokenFile
from dat_jax.data.vocabulary import Vocabulary
from dat_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Prepared data, opened.

    Token files leave out blank and over-long pairs; the text of valid and test is whole.
    """

    config: DataConfig
    source_vocabulary: Vocabulary
    target_vocabulary: Vocabulary
    splits: Mapping[str, TokenFile]
    folder: Path

    @property
    def fingerprints(self) -> tuple[str, str]:
        """What tells the vocabularies of source and target from all others."""
        return self.source_vocabulary.fingerprint, self.target_vocabulary.fingerprint

    def text(self, split: str) -> tuple[list[str], list[str]]:
        """Returns all source sentences and all references of `valid` or `test`."""
        sources, references = (read_lines(path) for path in text_paths(self.folder, split))
        return sources, references

    def report(self) -> str:
        """Returns one line for each split with its size and what was left out of it."""
        return "\n".join(
            f"{split}: {header.pairs:,} pairs, {header.source_tokens:,} source and "
            f"{header.target_tokens:,} target tokens; left out {header.too_long:,} over-long "
            f"and {header.blank:,} blank pairs"
            for split, header in ((split, file.header) for split, file in self.splits.items())
        )


def open_dataset(workdir: Path) -> Dataset:
    """Opens what `prepare` left in `workdir`.

    Raises:
        UserError: nothing is prepared there, or a part of it is missing or damaged.
    """
    folder = workdir / "data"
    config = prepared_config(workdir)
    if config is None:
        raise UserError(f"{workdir} holds no prepared data: train a model into it or prepare it")
    source, target = (Vocabulary.load(path) for path in vocabulary_paths(workdir, config))
    splits = {split: TokenFile(folder / split) for split in SPLITS}
    for file in splits.values():
        expected = (file.header.source_vocabulary, file.header.target_vocabulary)
        if (source.fingerprint, target.fingerprint) != expected:
            raise UserError(
                f"{workdir / 'vocabulary'} is not the vocabulary of {file.folder}: restore it, or "
                f"delete the folder {folder} and run again"
            )
    return Dataset(config, source, target, splits, folder)


def prepared_config(workdir: Path) -> DataConfig | None:
    """Returns the config that `workdir` was prepared with; None if it was not, or not wholly.

    Raises:
        UserError: the file that holds it is damaged.
    """
    path = workdir / "data" / "config.json"
    if not path.exists():
        return None
    try:
        return from_dict(DataConfig, json.loads(path.read_text(encoding="utf-8")), "data.")
    except ValueError:
        raise UserError(f"{path} is damaged: delete {path.parent} and run again") from None


def write_config(workdir: Path, config: DataConfig) -> None:
    """Marks `workdir` as wholly prepared with `config`."""
    text = json.dumps(dataclasses.asdict(config), indent=2)
    write_text(workdir / "data" / "config.json", text + "\n")


def vocabulary_paths(workdir: Path, config: DataConfig) -> tuple[Path, Path]:
    """Returns the model files of the source and the target, one and the same if joint."""
    folder = workdir / "vocabulary"
    if config.vocabulary == "joint":
        return folder / "joint.model", folder / "joint.model"
    return folder / "source.model", folder / "target.model"


def text_paths(folder: Path, split: str) -> tuple[Path, Path]:
    """Returns the files in the data folder that keep the text of `valid` or `test`."""
    return folder / f"{split}.src", folder / f"{split}.tgt"


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a file that ends each with a line feed; other breaks are text.

    Raises:
        UserError: the file is missing or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path} is damaged: delete {path.parent} and run again") from None
