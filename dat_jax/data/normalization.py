# SPDX-License-Identifier: Apache-2.0
"""Normalisation of text before it is cut into pieces, each side in its own form.

The target is written as people write it: what its form folds away, a model can never write, and a
perfect translation would not score as one.
"""

import re
import unicodedata
from collections.abc import Callable

import sentencepiece

from dat_jax.config import Normalization

Normalize = Callable[[str], str]

# Lines of characters without ink alone hold no text. They are controls and separators,
_INVISIBLE = {"Cc", "Zs", "Zl", "Zp"}
# those whose property Default_Ignorable_Code_Point, which Python does not know, is true in Unicode,
# the marks of annotations and of hieroglyphs' places, and the blank of Braille.
_WITHOUT_INK = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\ufff9-\ufffb\U00013430-\U0001343f\u2800]"
)


def normalizer(form: Normalization) -> Normalize:
    """Returns the function that brings a line into a form.

    `nmt_nfkc` is SentencePiece's default: compatibility characters are folded ("m²" becomes "m2"),
    marks without width are dropped. `nfc` only composes characters. In both, spaces of all kinds
    become single blanks. `none` is the line as it is. In all, a line without a visible character
    becomes empty.
    """
    fold = _fold_compatible() if form == "nmt_nfkc" else _FOLDS[form]

    def normalize(line: str) -> str:
        return fold(line) if _is_visible(line) else ""

    return normalize


def _unchanged(line: str) -> str:
    return line


def _compose(line: str) -> str:
    return " ".join(unicodedata.normalize("NFC", line).split())


_FOLDS: dict[str, Normalize] = {"nfc": _compose, "none": _unchanged}


def _fold_compatible() -> Normalize:
    fold = sentencepiece.SentencePieceNormalizer(
        rule_name="nmt_nfkc",
        add_dummy_prefix=False,
        escape_whitespaces=False,
        remove_extra_whitespaces=True,
    )
    return fold.normalize


def _is_visible(line: str) -> bool:
    return any(
        unicodedata.category(character) not in _INVISIBLE and not _WITHOUT_INK.match(character)
        for character in line
    )
