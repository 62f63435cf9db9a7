# SPDX-License-Identifier: Apache-2.0
"""Given translations are scored as whole passes over each prefix say, and searches of their own."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from dat_jax.data.vocabulary import EOS
from dat_jax.decoding.search import search
from dat_jax.decoding.trained import TrainedModel
from dat_jax.evaluation import forced
from dat_jax.evaluation.forced import force, longest
from dat_jax.exits.questions import Rule
from dat_jax.exits.rules import (
    Confidence,
    Fixed,
    SequenceMultinomial,
    TokenGeometric,
    TokenMultinomial,
    Uniform,
)
from tests.decoding.lively import make_model
from tests.decoding.plain_rules import PlainDecoder, choosing, draws_of, whole_pass
from tests.tiny import SOURCE_VOCABULARY, TARGET_VOCABULARY, tiny_config

ROOM = 12  # for the tokens of the slow twin
NUMBERS = [7, 0, 3, 11, 4]


def trained(kind: str, **decoding: Any) -> TrainedModel:
    model, params = make_model(kind)
    usual = {"beam_size": 2, "max_length_ratio": 0.5, "max_length_extra": 6}
    config = tiny_config(decoding=usual | decoding)
    return TrainedModel(dataclasses.replace(config, model=model.config), model, params)


def pairs(kind: str) -> tuple[list[list[int]], list[list[int]]]:
    """Sources and translations of several lengths, a blank source and a blank translation."""
    generator = np.random.default_rng(1)
    size = TARGET_VOCABULARY if kind == "tied" else SOURCE_VOCABULARY
    lengths = [(4, 6), (0, 3), (3, 0), (9, 11), (1, 2)]
    sources = [[*generator.integers(4, size, n).tolist(), EOS] for n, _ in lengths]
    targets = [[*generator.integers(4, TARGET_VOCABULARY, n).tolist(), EOS] for _, n in lengths]
    return sources, targets


@pytest.mark.parametrize(
    ("kind", "rule", "shortlist"),
    [
        ("post", TokenGeometric((0.97, 0.98)), 0),
        ("pre", TokenGeometric((0.65, 0.05)), 0),
        ("pre", Confidence((0.51, 0.71)), 0),
        ("per_exit", Confidence((0.7, 0.4)), 4),
        ("tied", TokenMultinomial(), 0),
        ("tied", Uniform(4, 1), 0),
        ("per_exit", SequenceMultinomial(), 0),
        ("pre", Fixed(2), 0),
        ("last", Fixed(3), 0),
    ],
    ids=str,
)
def test_scores_and_exits_are_those_of_a_pass_over_each_prefix(
    kind: str, rule: Rule, shortlist: int
):
    model = trained(kind, shortlist=shortlist)
    sources, targets = pairs(kind)
    found = force(model, rule, sources, targets, model.config.decoding, NUMBERS)
    depths, layers = model.model.config.exit_depths, model.model.config.decoder_layers
    draws = draws_of(getattr(rule, "seed", 0), np.asarray(NUMBERS, np.int32), ROOM)
    all_exits = set()
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        room = np.pad(np.asarray(source, np.int32), (0, ROOM - len(source)))
        decoder = PlainDecoder(model.model, model.params, room, rule, ROOM, draws[row])
        token_ll, exits = found[row]
        assert token_ll.shape == (len(depths), len(target))
        for position, token in enumerate(target):
            prefix = tuple(target[:position])
            aligned = (layers,) * (position + 1)
            outputs = whole_pass(model.model, model.params, room, prefix, aligned, ROOM)
            expected = outputs.log_probs[:, position, token]
            np.testing.assert_allclose(token_ll[:, position], expected, rtol=1e-4, atol=1e-5)
            if shortlist:
                outputs = outputs._replace(log_probs=choosing(outputs.log_probs, shortlist))
            assert exits[position] == decoder.exit_of(outputs, position, 0)
        all_exits |= set(exits.tolist())
    if not isinstance(rule, Fixed):
        assert len(all_exits) > 1


@pytest.mark.parametrize(("kind", "depth"), [("post", 1), ("pre", 2), ("post", 3)])
def test_sums_are_the_log_probabilities_of_a_search_on_its_own_translations(kind: str, depth: int):
    model = trained(kind, beam_size=3)
    sources, _ = pairs(kind)
    rule, decoding = Fixed(depth), model.config.decoding
    hypotheses = search(model, rule, sources, decoding, n_best=3).hypotheses
    listed = [(i, one) for i, best in enumerate(hypotheses) for one in best.n_best]
    assert len(listed) > len(sources)
    found = force(
        model, rule, [sources[i] for i, _ in listed], [h.tokens for _, h in listed], decoding
    )
    for scores, (_, hypothesis) in zip(found, listed, strict=True):
        assert tuple(scores.exits.tolist()) == hypothesis.exits
        np.testing.assert_allclose(scores.token_ll[depth - 1].sum(), hypothesis.log_prob, rtol=1e-4)


def test_a_sentence_s_exit_is_the_search_s():
    """No state is a copy where all tokens of a sentence exit together."""
    model = trained("per_exit", beam_size=2)
    sources, _ = pairs("per_exit")
    rule, decoding = SequenceMultinomial(), model.config.decoding
    hypotheses = search(model, rule, sources, decoding).hypotheses
    found = force(model, rule, sources, [h.tokens for h in hypotheses], decoding)
    assert len({h.exits[0] for h in hypotheses}) > 1
    for scores, hypothesis in zip(found, hypotheses, strict=True):
        assert tuple(scores.exits.tolist()) == hypothesis.exits
        at_exit = scores.token_ll[hypothesis.exits[0] - 1]
        np.testing.assert_allclose(at_exit.sum(), hypothesis.log_prob, rtol=1e-4)


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch):
    """Several batches of a room, in any order."""
    model = trained("pre")
    sources, targets = (side * 30 for side in pairs("pre"))
    rule, decoding = Confidence((0.51, 0.71)), model.config.decoding
    together = force(model, rule, sources, targets, decoding)
    monkeypatch.setattr(forced, "_TOKENS", 16)  # a row on each device
    apart = force(model, rule, sources[::-1], targets[::-1], decoding)[::-1]
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.token_ll, other.token_ll, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(one.exits, other.exits)


def test_what_fits_grows_with_the_memory(monkeypatch: pytest.MonkeyPatch):
    model = trained("pre")
    rooms = []
    for memory in (1, 1 << 20, 1 << 26):
        monkeypatch.setattr(forced, "memory_of", lambda _, memory=memory: memory)
        rooms.append(longest(model))
    assert rooms[0] == 16 < rooms[1] < rooms[2]
