# SPDX-License-Identifier: Apache-2.0
"""Sources of sentence pairs: a generated corpus, text files or tensorflow-datasets."""

import dataclasses
from collections.abc import Sequence

from dat_jax.config import DataConfig
from dat_jax.config.data import PATHS
from dat_jax.data.sources.held_out import HeldOutValidation
from dat_jax.data.sources.source import Source
from dat_jax.data.splits import SPLITS
from dat_jax.errors import UserError
from dat_jax.storage.paths import as_path, destination, same_destination


def open_source(config: DataConfig) -> Source:
    """Opens `config.source`: `generated:[PAIRS]`, `text:DIR` or `tfds:NAME`.

    With `config.valid_every`, the source needs no validation pairs of its own.

    Raises:
        UserError: the source cannot be opened with this config.
    """
    if config.valid_every:
        return HeldOutValidation(_open(config, ("train", "test")), config.valid_every)
    return _open(config, SPLITS)


def _open(config: DataConfig, splits: Sequence[str]) -> Source:
    """Opens these splits of the source; imports only the kind that is used."""
    kind, _, argument = config.source.partition(":")
    languages = (config.source_language, config.target_language)
    if kind == "generated":
        return _generated(argument, languages, config.seed)
    if kind == "text":
        from dat_jax.data.sources.text import TextFolder

        return TextFolder(as_path(argument), *languages, splits)
    from dat_jax.data.sources.tfds import TfdsTranslation

    return TfdsTranslation(argument, *languages, splits)


def same_source(one: str, other: str) -> bool:
    """Returns whether two values of `source` name the same text; resolves links of folders."""
    kinds, names = zip(*(source.split(":", 1) for source in (one, other)), strict=True)
    return one == other or (set(kinds) == {"text"} and same_destination(*names))


def settled(config: DataConfig) -> DataConfig:
    """Returns the same settings with links in all paths resolved."""
    paths = {key: getattr(config, key) for key in PATHS}
    settings = {key: str(destination(path)) for key, path in paths.items() if path}
    kind, _, name = config.source.partition(":")
    if kind == "text":
        settings["source"] = f"text:{destination(name)}"
    return dataclasses.replace(config, **settings)


def _generated(argument: str, languages: tuple[str, str], seed: int) -> Source:
    from dat_jax.data.sources.generated import DEFAULT_PAIRS, GeneratedCorpus

    if languages != ("de", "en"):
        raise UserError(
            "data.source generated: is German to English: set data.source_language to de "
            "and data.target_language to en"
        )
    if argument and (not argument.isdecimal() or int(argument) < 1):
        raise UserError(f"data.source generated:{argument}: give a number of pairs, 1 or more")
    return GeneratedCorpus(int(argument) if argument else DEFAULT_PAIRS, seed)
