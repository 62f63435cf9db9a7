# SPDX-License-Identifier: Apache-2.0
"""CTranslate2's translations and scores are ours."""

import contextlib
import io
import itertools
import re
from pathlib import Path

import ctranslate2
import numpy as np
import pytest

from dat_jax.api import TranslationModel
from dat_jax.errors import UserError
from dat_jax.export.ctranslate2 import ctranslate2_writer
from dat_jax.export.cut import up_to
from tests.export.models import KINDS, LIMIT, make, sources

# CTranslate2 masks EOS as the first token, as we do, but before it normalises: sums of a sentence
# shift by one number. With a penalty near 0, that number hardly depends on the length.
PENALTY = 1e-3


def export(kind: str, folder: Path, quantization: str | None = None) -> ctranslate2.Translator:
    trained = up_to(make(kind).trained, KINDS[kind].depth)
    ctranslate2_writer(quantization)(trained, folder)
    return ctranslate2.Translator(str(folder), intra_threads=1)


def encode(model: TranslationModel, lines: list[str]) -> tuple[list[list[int]], list[list[str]]]:
    """The ids of sentences, and their pieces without EOS."""
    assert model.trained.vocabularies is not None
    vocabulary = model.trained.vocabularies.source
    ids = vocabulary.encode(lines)
    return ids, [vocabulary.pieces(sentence[:-1]) for sentence in ids]


BEAMS = dict(zip(KINDS, itertools.cycle((1, 4)), strict=False))


@pytest.mark.parametrize(
    ("kind", "beam_size"), [*BEAMS.items(), ("pre, per exit, widths differ", 1)]
)
def test_translations_and_their_scores_are_ours(kind: str, beam_size: int, tmp_path: Path):
    model, translator = make(kind), export(kind, tmp_path)
    assert model.trained.vocabularies is not None
    ids, pieces = encode(model, sources(model))
    hypotheses = model.search(
        ids,
        policy=f"fixed:{KINDS[kind].depth}",
        limits=[LIMIT] * len(ids),
        beam_size=beam_size,
        length_penalty=PENALTY,
    ).hypotheses
    ours = [model.trained.vocabularies.target.pieces(found.tokens[:-1]) for found in hypotheses]
    found = translator.translate_batch(
        pieces,
        beam_size=beam_size,
        length_penalty=PENALTY,
        max_decoding_length=LIMIT - 1,  # EOS not counted
        disable_unk=True,
        suppress_sequences=[["<pad>"], ["<s>"]],  # random models need this
    )
    # In a beam, CTranslate2 does not add the likelihood of EOS where the limit forces it.
    pairs = [(x.hypotheses[0], y) for x, y in zip(found, ours, strict=True)]
    pairs = [pair for pair in pairs if beam_size == 1 or max(map(len, pair)) < LIMIT - 1]
    assert all(theirs == own for theirs, own in pairs)
    assert len({tuple(own) for _, own in pairs}) > 4

    scores = [sum(x.log_probs) for x in translator.score_batch(pieces, ours)]
    np.testing.assert_allclose(scores, [x.log_prob for x in hypotheses], atol=1e-3)


def test_the_readme_of_the_folder_translates(tmp_path: Path):
    kind = "pre, shared"
    export(kind, tmp_path)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert page.startswith("# de to en, 1 decoder blocks, for CTranslate2\n")
    program = "".join(re.findall(r"^    (.+\n)", page, re.MULTILINE))
    printed = io.StringIO()
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(printed):
        exec(program, {})
    (ours,) = make(kind).translate(["zwei Uhr"], policy="fixed:1", max_length_extra=257)
    assert printed.getvalue() == f"{ours.text}\n" != "\n"


def test_weights_are_stored_as_int8_if_asked(tmp_path: Path):
    kind = "post, tied"
    folders = [tmp_path / name for name in ("float32", "int8")]
    for folder in folders:
        folder.mkdir()
    whole, small = export(kind, folders[0]), export(kind, folders[1], "int8")
    assert whole.compute_type == "float32"
    assert small.compute_type.startswith("int8")
    # In float32, as errors of products of 8-bit integers depend on the processor.
    rounded = ctranslate2.Translator(str(folders[1]), compute_type="float32", intra_threads=1)
    sizes = [(folder / "model.bin").stat().st_size for folder in folders]
    assert sizes[1] < sizes[0]
    _, pieces = encode(make(kind), sources(make(kind)))
    scores = [
        np.concatenate([x.log_probs for x in translator.score_batch(pieces, pieces)])
        for translator in (whole, rounded)
    ]
    difference = np.abs(scores[0] - scores[1]).mean()
    assert 0 < difference < 0.02 * np.abs(scores[0]).mean()


def test_an_unknown_type_of_weights_is_refused():
    with pytest.raises(UserError, match="--quantization=int3: must be one of int8, int8_float32, "):
        ctranslate2_writer("int3")
