# SPDX-License-Identifier: Apache-2.0
"""Opponents, to translate with instead: CTranslate2, and Hugging Face's Marian on PyTorch.

Random weights of a given size: what they write means nothing, and how fast they write it is what
trained weights of that size would give. Both are post-norm Transformers with ReLU, sinusoidal
positions and one table for both embeddings and the classifier, on a CPU. Their packages are
imported when an opponent is made; `pip install -e '.[opponents]'` brings them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dat_jax.errors import UserError

_COMPUTE_TYPES = ("float32", "int8")


@dataclass(frozen=True)
class Size:
    """The dimensions that all systems share."""

    encoder_layers: int
    decoder_layers: int
    dim: int
    ff_dim: int
    heads: int
    vocabulary_size: int


@dataclass(frozen=True)
class Opponent:
    """A system ready to translate."""

    name: str
    decoder_layers: int
    translate: Callable[[np.ndarray, int, int], None]
    """Takes source [B, S] without padding, target length and beam size, where 1 is greedy search.
    Encodes, writes that many tokens for each row, no beam ending earlier, and returns when done."""


def opponents(size: Size, folder: Path, threads: int) -> list[Opponent]:
    """Makes every opponent; `folder` takes a model file that nobody needs afterwards."""
    return [*ctranslate2_opponents(size, folder, threads), marian_opponent(size, threads)]


def ctranslate2_opponents(size: Size, folder: Path, threads: int) -> list[Opponent]:
    """Makes CTranslate2 of one set of weights, in float32 and in int8."""
    ctranslate2 = _package("ctranslate2")
    vocabulary = ["<unk>", "<s>", "</s>", *(f"t{i}" for i in range(3, size.vocabulary_size))]
    folder.mkdir(parents=True, exist_ok=True)
    _save_random_weights(size, vocabulary, folder)

    def opponent(compute_type: str) -> Opponent:
        translator = ctranslate2.Translator(
            str(folder),
            device="cpu",
            compute_type=compute_type,
            inter_threads=1,
            intra_threads=threads,
        )

        def translate(source: np.ndarray, target_length: int, beam_size: int) -> None:
            results = translator.translate_batch(
                [[vocabulary[token] for token in row] for row in source.tolist()],
                max_batch_size=0,  # all rows at once
                beam_size=beam_size,
                min_decoding_length=target_length,
                max_decoding_length=target_length,
            )
            lengths = [len(result.hypotheses[0]) for result in results]
            assert lengths == [target_length] * len(source), lengths

        name = f"CTranslate2 {ctranslate2.__version__} {compute_type}"
        return Opponent(name, size.decoder_layers, translate)

    return [opponent(compute_type) for compute_type in _COMPUTE_TYPES]


def marian_opponent(size: Size, threads: int) -> Opponent:
    """Makes Marian in float32; sets the number of PyTorch's threads for the whole process."""
    torch, transformers = _package("torch"), _package("transformers")
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    pad = size.vocabulary_size - 1
    config = transformers.MarianConfig(
        vocab_size=size.vocabulary_size,
        d_model=size.dim,
        encoder_layers=size.encoder_layers,
        decoder_layers=size.decoder_layers,
        encoder_ffn_dim=size.ff_dim,
        decoder_ffn_dim=size.ff_dim,
        encoder_attention_heads=size.heads,
        decoder_attention_heads=size.heads,
        activation_function="relu",
        scale_embedding=True,
        eos_token_id=0,
        forced_eos_token_id=None,
        pad_token_id=pad,
        decoder_start_token_id=pad,
    )
    model = transformers.MarianMTModel(config).eval()

    def translate(source: np.ndarray, target_length: int, beam_size: int) -> None:
        inputs = torch.tensor(source, dtype=torch.long)
        with torch.inference_mode():
            written = model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                num_beams=beam_size,
                do_sample=False,
                use_cache=True,
                min_new_tokens=target_length,
                max_new_tokens=target_length,
            )
        assert written.shape == (len(source), 1 + target_length), written.shape  # 1: the start

    name = f"Marian, transformers {transformers.__version__} float32"
    return Opponent(name, size.decoder_layers, translate)


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is missing: pip install -e '.[opponents]'") from error


def _save_random_weights(size: Size, vocabulary: list[str], folder: Path) -> None:
    specs = _package("ctranslate2").specs
    layers = (size.encoder_layers, size.decoder_layers)
    spec = specs.TransformerSpec.from_config(
        layers, size.heads, pre_norm=False, activation=specs.Activation.RELU
    )
    random = np.random.default_rng(0)
    table = _normal(random, size.vocabulary_size, size.dim)
    spec.encoder.embeddings[0].weight = table
    spec.decoder.embeddings.weight = table
    spec.decoder.projection.weight = table
    d, f = size.dim, size.ff_dim
    for block in (*spec.encoder.layer, *spec.decoder.layer):
        attention, ffn = block.self_attention, block.ffn
        _fill(random, attention, attention.linear, [(3 * d, d), (d, d)])
        _fill(random, ffn, [ffn.linear_0, ffn.linear_1], [(f, d), (d, f)])
    for block in spec.decoder.layer:
        attention = block.attention
        _fill(random, attention, attention.linear, [(d, d), (2 * d, d), (d, d)])
    spec.register_source_vocabulary(vocabulary)
    spec.register_target_vocabulary(vocabulary)
    spec.validate()
    spec.optimize()
    spec.save(str(folder))


def _fill(
    random: np.random.Generator, sublayer: Any, linears: list[Any], sizes: list[tuple[int, int]]
) -> None:
    """Gives a sub-layer its LayerNorm and its linear layers, each of (outputs, inputs)."""
    for linear, (outputs, inputs) in zip(linears, sizes, strict=True):
        linear.weight = _normal(random, outputs, inputs)
        linear.bias = np.zeros(outputs, np.float32)
    dim = sizes[-1][0]
    sublayer.layer_norm.gamma = np.ones(dim, np.float32)
    sublayer.layer_norm.beta = np.zeros(dim, np.float32)


def _normal(random: np.random.Generator, outputs: int, inputs: int) -> np.ndarray:
    return np.float32(inputs**-0.5) * random.standard_normal((outputs, inputs), np.float32)
