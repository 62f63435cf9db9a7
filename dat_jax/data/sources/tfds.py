# SPDX-License-Identifier: Apache-2.0
"""Translation data sets of tensorflow-datasets, without TensorFlow.

They are prepared as ArrayRecord, which needs no TensorFlow, in `~/tensorflow_datasets` or the
folder named by the environment variable TFDS_DATA_DIR.
"""

import html
import importlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dat_jax.errors import UserError

_CHUNK = 1_000
_RETRIES = 4  # of a download; the default, ten, waits for minutes without a network


class TfdsTranslation:
    """A data set, `name` or `name/config`, whose records hold both languages."""

    def __init__(
        self, name: str, source_language: str, target_language: str, splits: Sequence[str]
    ) -> None:
        """Downloads and prepares the data set, unless that has been done.

        Raises:
            UserError: there is no such data set, or it lacks a language, `train` or `valid`.
        """
        import tensorflow_datasets

        # Importing this package registers the translation builders.
        importlib.import_module("tensorflow_datasets.translate")
        try:
            self._builder: Any = tensorflow_datasets.builder(name, file_format="array_record")
        except ValueError:
            raise UserError(
                f"tensorflow-datasets has no data set {name!r}: set data.source to tfds:NAME or "
                "tfds:NAME/CONFIG with one that it has"
            ) from None
        self._languages = (source_language, target_language)
        present = list(self._translation(name))
        for language in self._languages:
            if language not in present:
                raise UserError(
                    f"data.source tfds:{name} has no language {language!r}: set "
                    f"data.source_language and data.target_language to two of {', '.join(present)}"
                )
        self._download(name)
        self._splits = {
            split: self._name_of(split)
            for split in splits
            if split != "test" or split in self._builder.info.splits
        }

    @property
    def files(self) -> tuple[Path, ...]:
        """Empty: tensorflow-datasets manages its own files."""
        return ()

    @property
    def splits(self) -> Sequence[str]:
        """The splits that were asked for, without `test` if the data set has none."""
        return list(self._splits)

    def pairs(self, split: str) -> Iterator[tuple[str, str]]:
        """Yields the (source, reference) pairs of `split` in the order of the prepared files.

        Raises:
            UserError: the prepared files do not hold all records.
        """
        name = self._splits[split]
        records = self._builder.as_data_source(name)
        expected = self._builder.info.splits[name].num_examples
        if len(records) != expected:
            raise UserError(
                f"{self._builder.data_dir} holds {len(records)} records of {name} instead of "
                f"{expected}: delete that folder and run again"
            )
        for start in range(0, expected, _CHUNK):
            chunk = range(start, min(start + _CHUNK, expected))
            for record in records.__getitems__(list(chunk)):
                source, reference = (_text(record[language]) for language in self._languages)
                yield source, reference

    def _translation(self, name: str) -> Iterable[str]:
        """Returns the languages of the records.

        Raises:
            UserError: the records are not translations.
        """
        from tensorflow_datasets.core.features import Translation

        features = self._builder.info.features
        if not isinstance(features, Translation):
            raise UserError(
                f"data.source tfds:{name} is not a translation data set: set it to one, such as "
                "tfds:wmt14_translate/de-en"
            )
        return features

    def _download(self, name: str) -> None:
        """Downloads and prepares the data set, unless that has been done.

        Raises:
            UserError: the download fails.
        """
        from tensorflow_datasets.core.download import DownloadError, downloader

        downloader.MAX_RETRIES = _RETRIES  # ty: ignore
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        try:
            self._builder.download_and_prepare()
        except (OSError, DownloadError) as error:  # errors of `requests` are OSErrors
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"data.source tfds:{name} cannot be downloaded ({reason}): connect to the network, "
                "set TFDS_DATA_DIR to a folder in which it has been prepared, or use text:DIR"
            ) from None

    def _name_of(self, split: str) -> str:
        names = ("validation", "valid") if split == "valid" else (split,)
        present = self._builder.info.splits
        for name in names:
            if name in present:
                return name
        otherwise = ", or set data.valid_every" if split == "valid" else ""
        raise UserError(
            f"data.source tfds:{self._builder.info.full_name} has no split {names[0]}, only "
            f"{', '.join(present)}: choose another data set{otherwise}"
        )


def _text(value: bytes | str) -> str:
    """Returns a sentence on one line, with entities such as `&amp;` resolved."""
    text = value.decode("utf-8") if isinstance(value, bytes) else value
    return " ".join(html.unescape(text).split("\n"))
