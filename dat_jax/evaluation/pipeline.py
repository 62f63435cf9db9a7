# SPDX-License-Identifier: Apache-2.0
"""Translates a whole text; writes, prints and scores the translations as asked."""

import itertools
import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from dat_jax.decoding.translator import Translator
from dat_jax.evaluation import formats
from dat_jax.evaluation.results import EXITS, HYPOTHESES, N_BEST, ResultsWriter
from dat_jax.evaluation.scorer import Scorer
from dat_jax.evaluation.scores import score, tokenizers_of
from dat_jax.evaluation.summary import Summary
from dat_jax.evaluation.tally import Tally
from dat_jax.evaluation.texts import Text
from dat_jax.runtime.jax_flags import our_modes
from dat_jax.runtime.processes import by_first, is_first

_FORMS: dict[str, formats.Form] = {
    HYPOTHESES: formats.text,
    EXITS: formats.exits,
    N_BEST: formats.n_best_list,
}


@our_modes()
def translate(
    translator: Translator,
    text: Text,
    writer: ResultsWriter | None,
    echo: Callable[[str], None] | None = None,
    shown: formats.Form = formats.text,
) -> Summary:
    """Translates a text window by window; returns all figures.

    Of several processes, all translate, and the first writes, prints and scores.

    Args:
        translator: the model and its decoding settings.
        text: the lines, and references to score against, if any.
        writer: writes results, and tells what is already done; None to write nothing.
        echo: prints translations; None to print nothing.
        shown: the form in which it prints them.

    Lines that are left blank, as they do not fit into memory, are told on standard error.

    Raises:
        UserError: a line cannot be read.
    """
    kept = by_first(lambda: writer.progress.tally if writer and writer.progress else None)
    tally = Tally.restored(translator, kept) if kept else Tally(translator)
    hypotheses = writer.lines(HYPOTHESES) if writer and text.references is not None else []
    for translations in translator.stream(
        itertools.islice(text.lines, tally.sentences, None),
        total=text.total,
        arrives_within=text.arrives_within,
        done=tally.sentences,
    ):
        numbered = list(enumerate(translations.sentences, tally.sentences))
        tally.add(translations)
        for line in translations.too_long if is_first() else ():
            tqdm.write(f"warning: {line}", file=sys.stderr)
        if writer:
            writer.add(*([_FORMS[name](*one) for one in numbered] for name in writer.names))
            if text.sha256 and tally.sentences != text.total:
                writer.keep(tally.state())
        if text.references is not None:
            hypotheses += [sentence.text for _, sentence in numbered]
        if echo:
            echo("\n".join(shown(*one) for one in numbered))
    summary: Summary = {**tally.summary(), **text.checksums}
    if text.references is not None and is_first():
        tokenizers = tokenizers_of(translator.trained.config, translator.decoding)
        summary = {**score(hypotheses, text.references, tokenizers), **summary}
    if writer:
        writer.finish(summary)
    return summary


def contents_of(work: Translator | Scorer, text: Text) -> dict[str, Any]:
    """Returns checksums of text and model, and the policy, to recognise finished results."""
    names = {"text": "text", "references": "reference", "translations": "translations"}
    texts = {names[key.removesuffix("_sha256")]: text.checksums[key] for key in text.checksums}
    return texts | {"model": work.trained.sha256, "policy": repr(work.policy.rule)}
