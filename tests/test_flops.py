# SPDX-License-Identifier: Apache-2.0
"""The paper's FLOPs formula compared with a count of the matrix products for one sentence."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from dat_jax import flops
from dat_jax.exits.questions import Need, Rule, Scope
from dat_jax.exits.rules import (
    Confidence,
    Fixed,
    Margin,
    Patience,
    Schedule,
    SequenceMultinomial,
    Similarity,
    TokenGeometric,
    TokenMultinomial,
    Uniform,
)
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.types import Params
from tests.tiny import TARGET_VOCABULARY, tiny_config, tiny_model


@dataclasses.dataclass
class Counter:
    """Multiplies matrices and counts one multiplication and one addition per inner term."""

    total: int = 0

    def product(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        (m, k), (_, n) = left.shape, right.shape
        self.total += 2 * m * k * n
        return left @ right


def attend(counter: Counter, params, x: np.ndarray, keys: np.ndarray, values: np.ndarray):
    """One token's attention, head by head, over keys and values [P, D]."""
    heads, width, dim = params["output"]["kernel"].shape
    queries = counter.product(x, params["query"]["kernel"].reshape(dim, dim))
    mixed = []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        weights = counter.product(queries[:, own], keys[:, own].T)
        mixed.append(counter.product(weights, values[:, own]))
    return counter.product(np.hstack(mixed), params["output"]["kernel"].reshape(dim, dim))


def project(counter: Counter, params, x: np.ndarray) -> list[np.ndarray]:
    """The keys and values of `x`."""
    kernels = [params[name]["kernel"] for name in ("key", "value")]
    return [counter.product(x, kernel.reshape(x.shape[1], -1)) for kernel in kernels]


@functools.cache
def zero_params(model: Transformer) -> Params:
    """Zeros with the shapes of a model's parameters."""
    shapes = jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)


def count_a_sentence(
    model, source_length: int, exits: list[int], rule: Rule, blocks: int | None = None
) -> int:
    """The FLOPs of all products for a sentence with these `exits`, with copies and predictors, in a
    decoder of so many blocks, by default all."""
    config = model.config
    params = zero_params(model)
    memory = np.zeros((source_length, config.encoder_dim))
    table, head = params["classifiers"]["table"].T, params.get("exit_head", {}).get("kernel")
    hidden = params.get("exit_head", {}).get("hidden")
    counter = Counter()
    of_self: dict[int, list[np.ndarray]] = {}
    of_memory: dict[int, list[np.ndarray]] = {}
    if Need.SENTENCE_LOGITS in rule.needs:
        counter.product(memory.mean(axis=0, keepdims=True), head)
    for depth in exits:
        x = np.zeros((1, config.decoder_dim))
        for layer in range(blocks or config.decoder_layers):
            computed = layer < depth
            if not computed and (rule.scope is Scope.TEXT or not rule.deepens):
                break
            block = jax.tree.map(lambda leaf, n=layer: leaf[n], params["decoder"]["blocks"])
            new = project(counter, block["self_attention"], x)
            old = of_self.get(layer, [np.zeros((0, x.shape[1]))] * 2)
            of_self[layer] = [np.vstack(pair) for pair in zip(old, new, strict=True)]
            if not computed:
                continue
            if layer not in of_memory:
                of_memory[layer] = project(counter, block["memory_attention"], memory)
            before = x
            x = attend(counter, block["self_attention"], x, *of_self[layer])
            x = attend(counter, block["memory_attention"], x, *of_memory[layer])
            for name in ("Dense_0", "Dense_1"):
                x = counter.product(x, block["feed_forward"][name]["kernel"])
            if Need.HALTING_LOGIT in rule.needs or (
                Need.FIRST_STATE_LOGITS in rule.needs and layer == 0
            ):
                seen = x if hidden is None else counter.product(x, hidden["kernel"][0])
                counter.product(seen, head)
            if isinstance(rule, Similarity) and 1 <= layer < config.decoder_layers - 1:
                for one, other in ((before, x), (before, before), (x, x)):
                    counter.product(one, other.T)
            if Need.CLASSIFIER in rule.needs:
                counter.product(x, table)
        if Need.CLASSIFIER not in rule.needs:
            counter.product(x, table)
    return counter.total


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("source_length", "length"), [(1, 1), (5, 1), (4, 6)])
def test_the_formula_of_a_fixed_exit_equals_the_count(source_length, length, depth):
    model, exits = tiny_model(), [depth] * length
    formula = flops.translation(
        model.config, TARGET_VOCABULARY, source_length, np.array(exits), Fixed(depth)
    )
    assert formula == count_a_sentence(model, source_length, exits, Fixed(depth))


@pytest.mark.parametrize("exits", [[1, 1, 1], [3, 3], [2, 1, 3, 1], [1, 2], [3]])
@pytest.mark.parametrize(
    ("head", "hidden", "rule"),
    [
        ("none", 0, Uniform(3, 0)),
        ("sequence_multinomial", 0, SequenceMultinomial()),
        ("token_multinomial", 0, TokenMultinomial()),
        ("token_multinomial", 5, TokenMultinomial()),
        ("token_geometric", 0, TokenGeometric((0.5, 0.5))),
        ("token_geometric", 5, TokenGeometric((0.5, 0.5))),
        ("none", 0, Confidence((0.5, 0.5))),
        ("none", 0, Margin((0.5, 0.5))),
        ("none", 0, Similarity((0.5,))),
        ("none", 0, Patience(2)),
    ],
)
def test_the_formula_of_mixed_exits_equals_the_count(head, hidden, rule, exits):
    """The count includes copies, predictors, and memory projections when a block first runs."""
    model = tiny_model(exit_head=head, halting_hidden=hidden)
    formula = flops.translation(model.config, TARGET_VOCABULARY, 5, np.array(exits), rule)
    assert formula == count_a_sentence(model, 5, exits, rule)


@pytest.mark.parametrize("exits", [[1, 2, 1], [2, 2], [1]])
@pytest.mark.parametrize(
    ("head", "rule"),
    [("none", Confidence((0.5, 0.0))), ("token_geometric", TokenGeometric((0.5, 0.0)))],
)
def test_nothing_is_copied_to_blocks_that_no_token_can_reach(head, rule, exits):
    model = tiny_model(exit_head=head)
    formula = flops.translation(model.config, TARGET_VOCABULARY, 5, np.array(exits), rule)
    assert formula == count_a_sentence(model, 5, exits, rule, blocks=2)


@pytest.mark.parametrize("exits", [[3, 2, 2, 1], [2, 2, 1], [1, 1]])
def test_a_schedule_pays_no_copies(exits):
    """Nor does its decoder have blocks above the first depth."""
    model, rule = tiny_model(), Schedule(exits[0], exits[-1])
    formula = flops.translation(model.config, TARGET_VOCABULARY, 5, np.array(exits), rule)
    assert formula == count_a_sentence(model, 5, exits, rule)


@pytest.mark.parametrize("rule", [Fixed(1), SequenceMultinomial(), Similarity((0.5,))], ids=str)
def test_an_empty_translation_costs_nothing(rule: Rule):
    assert flops.translation(tiny_config().model, 11, 4, np.zeros(0, int), rule) == 0


@pytest.mark.parametrize(
    ("depth", "per_token"),
    list(enumerate([1.245e8, 1.579e8, 1.912e8, 2.246e8, 2.579e8, 2.913e8], start=1)),
)
def test_the_formula_matches_the_figure_of_the_paper(depth: int, per_token: float):
    """Values read off the figure for WMT'14 English-French, to three decimals."""
    config = tiny_config(
        model={
            "decoder_layers": 6,
            "encoder_dim": 1024,
            "encoder_heads": 16,
            "decoder_dim": 1024,
            "decoder_ff_dim": 4096,
            "decoder_heads": 16,
        }
    ).model
    source_length, length = 30, 33
    exits = np.full(length, depth)
    total = flops.translation(config, 44_512, source_length, exits, Fixed(depth))
    np.testing.assert_allclose(total / length, per_token, atol=0.001e8)
