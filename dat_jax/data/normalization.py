# SPDX-License-Identifier: Apache-2.0
"""Normalisation of text before it is split into pieces, in a form for each side.

The target form should fold nothing: a model cannot generate what was folded away, so even a perfect
translation would not match its reference.
"""

import re
import unicodedata
from collections.abc import Callable

import sentencepiece

from dat_jax.config import Normalization

Normalize = Callable[[str], str]

# A line of only invisible characters holds no text. These are controls and separators,
_INVISIBLE = {"Cc", "Zs", "Zl", "Zp"}
# and characters with Unicode's property Default_Ignorable_Code_Point, which Python lacks, format
# controls of annotations and hieroglyphs, and the blank of Braille.
_WITHOUT_INK = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\ufff9-\ufffb\U00013430-\U0001343f\u2800]"
)


def normalizer(form: Normalization) -> Normalize:
    """Returns the function that normalises a line to a form.

    `nmt_nfkc` is SentencePiece's default: it folds compatibility characters ("m²" becomes "m2") and
    drops zero-width marks. `nfc` only composes characters. Both turn runs of spaces of any kind
    into single blanks. `none` leaves the line unchanged. With all forms, a line without a visible
    character becomes empty.
    """
    fold = _fold_compatible() if form == "nmt_nfkc" else _FOLDS[form]

    def normalize(line: str) -> str:
        return fold(line) if _is_visible(line) else ""

    return normalize


def embed_normalization(model: bytes, form: Normalization) -> bytes:
    """Returns a serialised SentencePiece model that normalises to a form by itself.

    It is `model` unless the form is `nmt_nfkc`, the only one that SentencePiece has. Lines without
    a visible character do not become empty.
    """
    if form != "nmt_nfkc":
        return model
    fold = sentencepiece.SentencePieceNormalizer(
        rule_name=form,
        add_dummy_prefix=True,
        escape_whitespaces=True,
        remove_extra_whitespaces=True,
    )
    # Both are protocol buffers of one type, which merge when they are concatenated; the
    # normaliser's holds only the rules.
    return model + fold.serialized_model_proto()


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
