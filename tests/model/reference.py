# SPDX-License-Identifier: Apache-2.0
"""The model a second time, slow and obvious: numpy in float64, one sentence, vector by vector.

It reads the same tree of parameters. There are no masks: a sentence has no padding, and a position
attends to a list of vectors in which nothing is that it may not see.
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
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
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


def encode(config: ModelConfig, params: Tree, source: Sequence[int]) -> list[Vector]:
    """The memory: one vector for each source token."""
    tied = config.embeddings == "tied"
    xs = embed(params["target_embedding" if tied else "source_embedding"], source)
    for layer in range(config.encoder_layers):
        xs = encoder_block(config, layer_of(params["encoder"]["blocks"], layer), xs)
    return layer_norm(params["encoder"]["final_norm"], xs) if config.norm == "pre" else xs


def decode(
    config: ModelConfig, params: Tree, memory: list[Vector], inputs: Sequence[int]
) -> list[list[Vector]]:
    """The states [N][T] after each decoder block."""
    xs = embed(params["target_embedding"], inputs)
    after_blocks = []
    for layer in range(config.num_layers):
        xs = decoder_block(config, layer_of(params["decoder"]["blocks"], layer), xs, memory)
        after_blocks.append(xs)
    return after_blocks


def classify(config: ModelConfig, params: Tree, index: int, state: Vector) -> Vector:
    """The logits of exit `index` for one state."""
    own = params.get("classifiers", {})
    if config.norm == "pre":
        norm = {"scale": own["scale"][index], "bias": own["bias"][index]}
        (state,) = layer_norm(norm, [state])
    if config.embeddings == "tied":
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
    """What one position makes of the vectors it sees; kernels are [M, H, K], the last [H, K, D]."""
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
