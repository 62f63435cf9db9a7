# SPDX-License-Identifier: Apache-2.0
"""Forms in which a translation is written and printed: text, n-best list, JSON.

Each takes the number of the sentence in its text, from 0, and the translation.
"""

import json
from collections.abc import Callable
from typing import Any

from dat_jax.decoding.translator import Translation

Form = Callable[[int, Translation], str]


def text(_: int, translation: Translation) -> str:
    """Returns the text alone."""
    return translation.text


def n_best_list(number: int, translation: Translation) -> str:
    """Returns the best hypotheses, best first: `number ||| text ||| score` on each line."""
    return "\n".join(f"{number} ||| {one.text} ||| {one.score!r}" for one in translation.n_best)


def exits(_: int, translation: Translation) -> str:
    """Returns tokens, exits and scores as JSON, as the lines of `exits.jsonl` have them."""
    return _json(translation, _exits)


def whole(_: int, translation: Translation) -> str:
    """Returns the text, too, as JSON, for readers of standard output."""
    return _json(translation, _whole)


def _json(translation: Translation, values: Callable[[Translation], dict[str, Any]]) -> str:
    ranked = [values(one) for one in translation.n_best]
    line = values(translation) | ({"nbest": ranked} if ranked else {})
    return json.dumps(line, ensure_ascii=False)


def _exits(translation: Translation) -> dict[str, Any]:
    return {
        "tokens": translation.pieces,
        "exits": translation.exits,
        "score": translation.score,
    }


def _whole(translation: Translation) -> dict[str, Any]:
    return {
        "text": translation.text,
        "pieces": translation.pieces,
        "exits": translation.exits,
        "score": translation.score,
    }
