# SPDX-License-Identifier: Apache-2.0
"""What a page shows of a tiny model with a halting head, and of text that is hard to show."""

import functools
from typing import Any

from dat_jax.exits.rules import Confidence
from dat_jax.explore.collect import LOG_LIKELIHOOD, PROBABILITY, Sentence, collect
from tests.export.models import make, sources

KIND = "post, per exit"
RULE = Confidence((0.2, 0.3))
HOSTILE = [
    ("</script><script>document.title = 'broken'</script>", "<b>one</b> & <!-- two"),
    ("ثلاثة وعشرون يومًا", "عشرون"),
    ("二十三日、そして午後四時", "二十三"),
    ("ein \u2028 Tag {{data}}", 'a "day" \\'),
]


@functools.cache
def texts() -> tuple[Sentence, ...]:
    """Sentences of the model's language, and hostile ones, each with a reference."""
    usual = [(line, line[::-1]) for line in sources(make(KIND))[:4]]
    return tuple(Sentence(2 * n, *pair) for n, pair in enumerate(usual + HOSTILE, 1))


@functools.cache
def data(*, references: bool = True) -> dict[str, Any]:
    """All that a page needs."""
    trained = make(KIND).trained
    sentences = [
        sentence if references else sentence._replace(reference=None) for sentence in texts()
    ]
    shown = collect(trained, RULE, trained.config.decoding, sentences)
    about = {
        "run": "tiny <run>",
        "version": "0",
        "steps": trained.steps,
        "depths": trained.config.model.decoder_layers,
        "policy": str(RULE),
        "kind": RULE.kind,
        "beam_size": 1,
        "text": "some lines",
        "languages": ["de", "en"],
        "oracle": "likelihood",
        "probability": PROBABILITY,
        "log_likelihood": LOG_LIKELIHOOD,
    }
    return about | shown
