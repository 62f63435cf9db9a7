# SPDX-License-Identifier: Apache-2.0
"""Sources of sentence pairs: a generated corpus, text files or tensorflow-datasets."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from dat_jax.config import DataConfig
from dat_jax.errors import UserError
from dat_jax.paths import as_path, same_destination


@runtime_checkable
class Source(Protocol):
    """Sentence pairs in the three splits, and the files of the user's that they come from."""

    @property
    def files(self) -> Sequence[Path]:
        """The files that somebody may change; none if the text is made or looked after by code."""
        ...

    def pairs(self, split: str) -> Iterator[tuple[str, str]]:
        """Yields the (source, reference) pairs of `split`, in the same order each time."""
        ...


def open_source(config: DataConfig) -> Source:
    """Opens what `config.source` names: `generated:[PAIRS]`, `text:DIR` or `tfds:NAME`.

    Each kind of source is imported only when asked for.

    Raises:
        UserError: the source cannot be opened with this config.
    """
    kind, _, argument = config.source.partition(":")
    languages = (config.source_language, config.target_language)
    if kind == "generated":
        return _generated(argument, languages, config.seed)
    if kind == "text":
        from dat_jax.data.sources.text import TextFolder

        return TextFolder(as_path(argument), *languages)
    from dat_jax.data.sources.tfds import TfdsTranslation

    return TfdsTranslation(argument, *languages)


def same_source(one: str, other: str) -> bool:
    """True if two settings of `source` name the same text: folders by where they lead."""
    kinds, names = zip(*(source.split(":", 1) for source in (one, other)), strict=True)
    return one == other or (set(kinds) == {"text"} and same_destination(*names))


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
