# SPDX-License-Identifier: Apache-2.0
"""The values at every exit are those of whole passes, and the page's numbers are these."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from dat_jax.data.vocabulary import EOS
from dat_jax.decoding.trained import TrainedModel
from dat_jax.errors import UserError
from dat_jax.explore import collect
from dat_jax.explore.collect import LOG_LIKELIHOOD, PROBABILITY, Sentence
from dat_jax.explore.depths import LIKELIEST, depths_of
from tests.decoding.lively import make_model
from tests.decoding.plain_rules import whole_pass
from tests.explore.cases import KIND, RULE, data, texts
from tests.export.models import make
from tests.tiny import SOURCE_VOCABULARY, TARGET_VOCABULARY, tiny_config

ROOM = 12
PENALTY = 0.3


@pytest.mark.parametrize("kind", ["pre", "per_exit"])
def test_values_are_those_of_a_whole_pass(kind: str):
    model, params = make_model(kind)
    config = tiny_config(exit={"oracle": "likelihood", "exit_penalty": PENALTY})
    trained = TrainedModel(dataclasses.replace(config, model=model.config), model, params)
    generator, lengths = np.random.default_rng(1), [(4, 6), (3, 0), (9, 10)]
    sources = [[*generator.integers(4, SOURCE_VOCABULARY, n).tolist(), EOS] for n, _ in lengths]
    targets = [[*generator.integers(4, TARGET_VOCABULARY, n).tolist(), EOS] for _, n in lengths]
    oracles = set()
    for source, target, found in zip(
        sources, targets, depths_of(trained, sources, targets), strict=True
    ):
        room = np.pad(np.asarray(source, np.int32), (0, ROOM - len(source)))
        full = (model.config.decoder_layers,) * len(target)
        outputs = whole_pass(model, params, room, tuple(target[:-1]), full, ROOM)
        log_probs = outputs.log_probs[:, : len(target)]
        expected = np.stack([log_probs[:, t, token] for t, token in enumerate(target)], axis=1)
        np.testing.assert_allclose(found.token_ll, expected, rtol=1e-4, atol=1e-5)
        ranked = np.sort(np.exp(log_probs), axis=-1)[..., ::-1][..., :LIKELIEST]
        np.testing.assert_allclose(found.probabilities, ranked, rtol=1e-4, atol=1e-5)
        named = np.take_along_axis(np.exp(log_probs), found.likeliest, axis=-1)
        np.testing.assert_allclose(named, ranked, rtol=1e-4, atol=1e-5)
        if kind == "pre":
            halting = 1 / (1 + np.exp(-outputs.exit_logits[: len(target)].T))
            np.testing.assert_allclose(found.halting, halting, rtol=1e-4, atol=1e-5)
        else:
            assert found.halting.shape == (0, len(target))
        for t in range(len(target)):
            gains = [expected[n, t] - PENALTY * n for n in range(len(expected))]
            assert found.oracle[t] == 1 + gains.index(max(gains))
            best = found.likeliest[:, t, 0].tolist()
            assert found.agreement[t] == 1 + best.index(best[-1])
        oracles |= set(found.oracle.tolist())
    assert len(oracles) > 1


def test_the_page_s_numbers_are_these_values():
    trained = make(KIND).trained
    assert trained.vocabularies is not None
    shown, vocabularies = data(), trained.vocabularies
    pieces = shown["pieces"]
    assert len(set(pieces)) == len(pieces)
    references = [sentence.reference or "" for sentence in texts()]
    ids = vocabularies.target.encode(references)
    sources = vocabularies.source.encode([sentence.source for sentence in texts()])
    for sentence, given, tokens, depths in zip(
        shown["sentences"], texts(), ids, depths_of(trained, sources, ids), strict=True
    ):
        assert (sentence["line"], sentence["source"]) == given[:2]
        assert sentence["reference_text"] == given.reference
        columns = sentence["reference"]
        assert [pieces[place] for place in columns["pieces"]] == vocabularies.target.pieces(tokens)
        for name, values, units in (
            ("token_ll", depths.token_ll, LOG_LIKELIHOOD),
            ("halting", depths.halting, PROBABILITY),
        ):
            np.testing.assert_allclose(np.array(columns[name]).T / units, values, atol=0.6 / units)
        assert columns["oracle"] == depths.oracle.tolist()
        for position, rows in enumerate(columns["likeliest"]):
            for depth, row in enumerate(rows):
                named = vocabularies.target.pieces(depths.likeliest[depth, position])
                count = len(row) // 2
                assert [pieces[place] for place in row[::2]] == named[:count]
                probabilities = depths.probabilities[depth, position]
                np.testing.assert_allclose(
                    np.array(row[1::2]) / PROBABILITY, probabilities[:count], atol=1e-5
                )
                assert (probabilities[max(count, 1) :] < 0.00501).all()


def test_translations_are_the_search_s():
    model = make(KIND)
    lines = [sentence.source for sentence in texts()]
    for sentence, found in zip(
        data()["sentences"], model.translate(lines, policy=RULE), strict=True
    ):
        assert sentence["text"] == found.text
        assert sentence["exits"] == found.exits
        places = sentence["translation"]["pieces"]
        assert tuple(data()["pieces"][place] for place in places) == found.pieces
    exits = {exit for sentence in data()["sentences"] for exit in sentence["exits"]}
    assert len(exits) > 1


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch):
    trained = make(KIND).trained
    assert trained.vocabularies is not None
    for source, reference in [("eins " * 6, "one"), ("eins", "one " * 6)]:
        ids = trained.vocabularies.source.encode([source])
        ids += trained.vocabularies.target.encode([reference])
        most = max(map(len, ids))
        given = trained, RULE, trained.config.decoding, [Sentence(3, source, reference)]
        monkeypatch.setattr(collect, "longest", lambda _, most=most: most)
        assert len(collect.collect(*given)["sentences"]) == 1
        monkeypatch.setattr(collect, "longest", lambda _, most=most: most - 1)
        message = f"line 3 has {most} pieces and {most - 1} fit into memory"
        with pytest.raises(UserError, match=message):
            collect.collect(*given)


@pytest.mark.parametrize("unlikely", [0.1, 2.0])
def test_unlikely_tokens_are_left_out_but_for_the_likeliest(
    monkeypatch: pytest.MonkeyPatch, unlikely: float
):
    trained = make(KIND).trained
    monkeypatch.setattr(collect, "_UNLIKELY", unlikely)
    shown = collect.collect(trained, RULE, trained.config.decoding, texts())
    kept = set[bool]()
    for sentence, usual in zip(shown["sentences"], data()["sentences"], strict=True):
        rows = [_named(shown, row) for rows in sentence["reference"]["likeliest"] for row in rows]
        wholes = [_named(data(), row) for rows in usual["reference"]["likeliest"] for row in rows]
        for row, (first, *others) in zip(rows, wholes, strict=True):
            likely = [pair for pair in others if pair[1] >= unlikely * PROBABILITY]
            assert row == [first, *likely]
            kept |= {pair in likely for pair in others}
    assert kept == {False, unlikely < 1}


def _named(shown: dict[str, Any], row: list[int]) -> list[tuple[str, int]]:
    """Pieces and probabilities of a row that alternates between them."""
    return [
        (shown["pieces"][place], number) for place, number in zip(row[::2], row[1::2], strict=True)
    ]
