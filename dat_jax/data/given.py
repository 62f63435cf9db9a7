# SPDX-License-Identifier: Apache-2.0
"""Vocabularies that a config gives as files, `data.source_vocabulary` and `data.target_vocabulary`,
instead of having them trained."""

from collections.abc import Iterator
from pathlib import Path

from dat_jax.config import DataConfig
from dat_jax.config.schema import require
from dat_jax.data.dataset import vocabulary_paths
from dat_jax.data.vocabulary import BOS, EOS, PAD, UNK, Vocabulary
from dat_jax.errors import UserError
from dat_jax.storage.paths import as_path

_SPECIAL = {"pad": PAD, "unk": UNK, "bos": BOS, "eos": EOS}


def read_given(config: DataConfig, folder: Path) -> dict[Path, bytes]:
    """Reads the given SentencePiece models; returns them by the paths that they get in `folder`.

    Raises:
        UserError: a file cannot be used, or normalises text that is normalised already.
    """
    return {place: _read(config, side, path) for side, path, place in _given(config, folder)}


def check_given(config: DataConfig, folder: Path) -> None:
    """Checks that given files are still those that were copied to `folder`.

    A missing file counts as unchanged.

    Raises:
        UserError: one has changed.
    """
    for side, path, place in _given(config, folder):
        if path.exists() and place.exists() and path.read_bytes() != place.read_bytes():
            raise UserError(
                f"data.{side}_vocabulary is {path}, which has changed since {place} was copied "
                "from it: restore it, move it away to continue without it, or give another "
                "--workdir"
            )


def _given(config: DataConfig, folder: Path) -> Iterator[tuple[str, Path, Path]]:
    """Yields the side of each given file, its path, and that of its copy; source if joint."""
    files = zip(config.vocabulary_files, vocabulary_paths(folder, config), strict=True)
    for side, (name, place) in zip(("source", "target"), files, strict=True):
        if name and (side == "source" or config.vocabulary == "separate"):
            yield side, as_path(name), place


def _read(config: DataConfig, side: str, path: Path) -> bytes:
    """Reads and checks one SentencePiece model.

    Raises:
        UserError: it is missing, no SentencePiece model, or has other special ids, or it normalises
            text that the config normalises, too.
    """
    given = f"data.{side}_vocabulary is {path}"
    try:
        model = path.read_bytes()
        vocabulary = Vocabulary(model)
    except OSError as error:
        raise UserError(
            f"{given}, which cannot be read ({error.strerror}): give a SentencePiece .model file, "
            "or leave the key empty to train a vocabulary"
        ) from None
    except ValueError:
        raise UserError(
            f"{given}, which is not a SentencePiece model: give the .model file, not .vocab"
        ) from None
    ids = vocabulary.special_ids
    differ = [f"{x} is {ids[x]}, not {own}" for x, own in _SPECIAL.items() if ids[x] != own]
    wanted = " ".join(f"--{name}_id={own}" for name, own in _SPECIAL.items())
    require(
        not differ,
        f"{given}, whose special ids differ ({'; '.join(differ)}; -1 is none): train it with "
        f"spm_train {wanted}",
    )
    rules, joint = vocabulary.own_normalization, config.vocabulary == "joint"
    keys = [f"{x}_normalization" for x in (("source", "target") if joint else (side,))]
    ours = [f"data.{key}" for key in keys if getattr(config, key) != "none"]
    require(
        not rules or not ours,
        f"{given}, which normalises text itself (by {rules}): set {' and '.join(ours)} to none",
    )
    return model
