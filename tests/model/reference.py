# SPDX-License-Identifier: Apache-2.0
"""The reference model, slow and obvious: numpy in float64, one sentence, vector by vector.

It reads the same parameter tree. It needs no masks: a sentence has no padding, and a position
attends to a list of just the vectors that it may see.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from dat_jax.config import ModelConfig

Vector = np.ndarray
Tree = dict[str, Any]


def logits(
    config: ModelConfig, params: Tree, source: Sequence[int], inputs: Sequence[int]
) -> np.ndarray:
    """The logits [X, T, V] of every exit at every position of one sentence."""
    params = in_float64(params)
    memory = encode(config, params, source)
    after_blocks = decode(config, params, memory, inputs)
    if config.exits == "last":
        after_blocks = after_blocks[-1:]
    return np.array(
        [
            [classify(config, params, index, state) for state in states]
            for index, states in enumerate(after_blocks)
        ]
    )


def in_float64(params: Tree) -> Tree:
    """The parameters in float64, as the functions below expect them."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def encode(config: ModelConfig, params: Tree, source: Sequence[int]) -> list[Vector]:
    """The memory: one vector for each source token."""
    tied = config.embeddings == "tied"
    xs = embed(params["target_embedding" if tied else "source_embedding"], source)
    for layer in range(config.encoder_layers):
        xs = encoder_block(config, layer_of(params["encoder"]["blocks"], layer), xs)
    return layer_norm(params["encoder"]["final_norm"], xs) if config.norm == "pre" else xs


def decode(
    config: ModelConfig,
    params: Tree,
    memory: list[Vector],
    inputs: Sequence[int],
    exit_depth: Sequence[int] | None = None,
) -> list[list[Vector]]:
    """The states [N][T] after each decoder block, token by token.

    Token t runs blocks 1 to `exit_depth[t]`, by default all. Its last state is copied to the blocks
    above, which project it to keys and values for later tokens.
    """
    depths = [config.decoder_layers] * len(inputs) if exit_depth is None else exit_depth
    seen_by_blocks: list[list[Vector]] = [[] for _ in range(config.decoder_layers)]
    after_blocks: list[list[Vector]] = [[] for _ in range(config.decoder_layers)]
    for x, depth in zip(embed(params["target_embedding"], inputs), depths, strict=True):
        for layer, seen in enumerate(seen_by_blocks):
            seen.append(x)
            if layer < depth:
                block = layer_of(params["decoder"]["blocks"], layer)
                x = decoder_block(config, block, seen, memory)[-1]
            after_blocks[layer].append(x)
    return after_blocks


def exit_logits(
    config: ModelConfig, params: Tree, memory: list[Vector], after_blocks: list[list[Vector]]
) -> np.ndarray:
    """The exit head's logits of one sentence, [N], or of its tokens, [T, N] or [T, N - 1]."""
    kernel, bias = params["exit_head"]["kernel"], params["exit_head"]["bias"]
    if config.exit_head == "sequence_multinomial":
        return sum(memory) / len(memory) @ kernel + bias
    if config.norm == "pre":
        plain = {"scale": 1.0, "bias": 0.0}
        after_blocks = [layer_norm(plain, states) for states in after_blocks]
    if config.exit_head == "token_multinomial":
        return np.array([state @ kernel + bias for state in after_blocks[0]])
    units = [0] * config.decoder_layers if config.halting_weights == "shared" else range(bias.size)

    def halting_logit(x: Vector, unit: int) -> float:
        if config.halting_hidden:
            hidden = layer_of(params["exit_head"]["hidden"], unit)
            x = np.maximum(x @ hidden["kernel"] + hidden["bias"], 0)
        return x @ kernel[:, unit] + bias[unit]

    return np.array(
        [
            [halting_logit(x, unit) for x, unit in zip(xs[:-1], units, strict=False)]
            for xs in zip(*after_blocks, strict=True)
        ]
    )


def classify(config: ModelConfig, params: Tree, index: int, state: Vector) -> Vector:
    """The logits of exit `index` for one state."""
    own = params.get("classifiers", {})
    if config.norm == "pre":
        norm = {"scale": own["scale"][index], "bias": own["bias"][index]}
        (state,) = layer_norm(norm, [state])
    if config.embeddings != "untied":
        return params["target_embedding"]["table"] @ state
    table = own["table"] if config.classifiers == "shared" else own["table"][index]
    return table @ state


def encoder_block(config: ModelConfig, block: Tree, xs: list[Vector]) -> list[Vector]:
    def self_attention(xs: list[Vector]) -> list[Vector]:
        return [attend(block["self_attention"], x, xs) for x in xs]

    xs = residual(config, block["self_residual"], self_attention, xs)
    return residual(config, block["ff_residual"], feed_forward_of(block), xs)


def decoder_block(
    config: ModelConfig, block: Tree, xs: list[Vector], memory: list[Vector]
) -> list[Vector]:
    def self_attention(xs: list[Vector]) -> list[Vector]:
        return [attend(block["self_attention"], x, xs[: t + 1]) for t, x in enumerate(xs)]

    def memory_attention(xs: list[Vector]) -> list[Vector]:
        return [attend(block["memory_attention"], x, memory) for x in xs]

    xs = residual(config, block["self_residual"], self_attention, xs)
    xs = residual(config, block["memory_residual"], memory_attention, xs)
    return residual(config, block["ff_residual"], feed_forward_of(block), xs)


def residual(
    config: ModelConfig,
    params: Tree,
    sub_layer: Callable[[list[Vector]], list[Vector]],
    xs: list[Vector],
) -> list[Vector]:
    if config.norm == "pre":
        updates = sub_layer(layer_norm(params["norm"], xs))
        return [x + update for x, update in zip(xs, updates, strict=True)]
    updates = sub_layer(xs)
    return layer_norm(params["norm"], [x + update for x, update in zip(xs, updates, strict=True)])


def attend(params: Tree, x: Vector, seen: list[Vector]) -> Vector:
    """Output of a position that sees these vectors; kernels are [M, H, K], the last [H, K, D]."""
    _, heads, width = params["query"]["kernel"].shape
    out = params["output"]["bias"]
    for head in range(heads):

        def project(name: str, vector: Vector, head: int = head) -> Vector:
            return vector @ params[name]["kernel"][:, head] + params[name]["bias"][head]

        query = project("query", x)
        scores = [query @ project("key", vector) / math.sqrt(width) for vector in seen]
        exponentials = np.exp(np.array(scores) - max(scores))
        weights = exponentials / exponentials.sum()
        mixed = sum(w * project("value", vector) for w, vector in zip(weights, seen, strict=True))
        out = out + mixed @ params["output"]["kernel"][head]
    return out


def feed_forward_of(block: Tree) -> Callable[[list[Vector]], list[Vector]]:
    first, second = (block["feed_forward"][name] for name in ("Dense_0", "Dense_1"))

    def feed_forward(x: Vector) -> Vector:
        hidden = np.maximum(x @ first["kernel"] + first["bias"], 0)
        return hidden @ second["kernel"] + second["bias"]

    return lambda xs: [feed_forward(x) for x in xs]


def layer_norm(params: Tree, xs: list[Vector]) -> list[Vector]:
    def one(x: Vector) -> Vector:
        variance = np.mean((x - x.mean()) ** 2)
        return (x - x.mean()) / math.sqrt(variance + 1e-6) * params["scale"] + params["bias"]

    return [one(x) for x in xs]


def embed(params: Tree, tokens: Sequence[int]) -> list[Vector]:
    """Rows of the table times sqrt(M), plus a sine and a cosine of the position per frequency."""
    dim = params["table"].shape[1]
    half = dim // 2
    xs = []
    for position, token in enumerate(tokens):
        angles = [position / 10_000 ** (i / (half - 1)) for i in range(half)]
        wave = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        xs.append(params["table"][token] * math.sqrt(dim) + np.array(wave))
    return xs


def layer_of(blocks: Tree, layer: int) -> Tree:
    return jax.tree.map(lambda leaf: leaf[layer], blocks)
