# SPDX-License-Identifier: Apache-2.0
"""Normalisation of text before it is cut into pieces, each side in its own form.

The target is written as people write it: what its form folds away, a model can never write, and a
perfect translation would not score as one.
"""

import unicodedata
from collections.abc import Callable

import sentencepiece

from dat_jax.sections import Normalization

Normalize = Callable[[str], str]

# Controls, invisible format characters, and separators: lines of these alone hold no text.
_INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp"}


def normalizer(form: Normalization) -> Normalize:
    """Returns the function that brings a line into a form.

    `nmt_nfkc` is SentencePiece's default: compatibility characters are folded ("m²" becomes "m2"),
    marks without width are dropped. `nfc` only composes characters. In both, spaces of all kinds
    become single blanks, and a line without a visible character becomes empty. `none` is the line
    as it is.
    """
    if form == "none":
        return _unchanged
    fold = _fold_compatible() if form == "nmt_nfkc" else _compose

    def normalize(line: str) -> str:
        return fold(line) if _is_visible(line) else ""

    return normalize


def _unchanged(line: str) -> str:
    return line


def _compose(line: str) -> str:
    return " ".join(unicodedata.normalize("NFC", line).split())


def _fold_compatible() -> Normalize:
    fold = sentencepiece.SentencePieceNormalizer(
        rule_name="nmt_nfkc",
        add_dummy_prefix=False,
        escape_whitespaces=False,
        remove_extra_whitespaces=True,
    )
    return fold.normalize


def _is_visible(line: str) -> bool:
    return any(unicodedata.category(character) not in _INVISIBLE for character in line)
