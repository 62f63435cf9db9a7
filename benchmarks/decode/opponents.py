# SPDX-License-Identifier: Apache-2.0
"""Other systems to time: CTranslate2, and Hugging Face's Marian on PyTorch.

All are post-norm Transformers with ReLU, sinusoidal positions and one table for both embeddings and
the classifier. Their weights are random, so their output means nothing, but its speed is that of
trained weights of the same size. `pip install -e '.[opponents]'` installs their packages.
"""

import dataclasses
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from dat_jax.config import Config
from dat_jax.errors import UserError


class Opponent(NamedTuple):
    """A system ready to translate on the CPU."""

    name: str
    decoder_layers: int
    translate: Callable[[np.ndarray, int, int], None]
    """Takes source [B, S] without padding, the target length and the beam size, where 1 is greedy
    search. Generates that many tokens for each row."""


def opponents(config: Config, shallow: int, folder: Path, threads: int) -> Iterator[Opponent]:
    """Yields every opponent at the sizes of a config, and CTranslate2 also with a shallow decoder.

    Args:
        config: its encoder and decoder are equally wide.
        shallow: decoder blocks of the shallow opponents.
        folder: where to save model files that nobody needs afterwards.
        threads: of each system; for PyTorch this sets them for the whole process.
    """
    model = dataclasses.replace(config.model, decoder_layers=shallow)
    yield from _ctranslate2(config, folder / "deep", threads)
    yield _marian(config, threads)
    yield from _ctranslate2(dataclasses.replace(config, model=model), folder / "shallow", threads)


def _ctranslate2(config: Config, folder: Path, threads: int) -> Iterator[Opponent]:
    """Yields CTranslate2 in float32 and in int8, with the same weights."""
    ctranslate2 = _package("ctranslate2")
    size = config.data.vocabulary_size
    vocabulary = ["<unk>", "<s>", "</s>", *(f"t{i}" for i in range(3, size))]
    folder.mkdir(parents=True, exist_ok=True)
    _save_random_weights(config, vocabulary, folder)
    for compute_type in ("float32", "int8"):
        translator = ctranslate2.Translator(
            str(folder),
            device="cpu",
            compute_type=compute_type,
            inter_threads=1,
            intra_threads=threads,
        )

        def translate(
            source: np.ndarray, target_length: int, beam_size: int, translator: Any = translator
        ) -> None:
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
        yield Opponent(name, config.model.decoder_layers, translate)


def _marian(config: Config, threads: int) -> Opponent:
    """Returns Marian in float32."""
    torch, transformers = _package("torch"), _package("transformers")
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    sizes, pad = config.model, config.data.vocabulary_size - 1
    of_marian = transformers.MarianConfig(
        vocab_size=config.data.vocabulary_size,
        d_model=sizes.decoder_dim,
        encoder_layers=sizes.encoder_layers,
        decoder_layers=sizes.decoder_layers,
        encoder_ffn_dim=sizes.encoder_ff_dim,
        decoder_ffn_dim=sizes.decoder_ff_dim,
        encoder_attention_heads=sizes.encoder_heads,
        decoder_attention_heads=sizes.decoder_heads,
        activation_function="relu",
        scale_embedding=True,
        eos_token_id=0,
        forced_eos_token_id=None,
        pad_token_id=pad,
        decoder_start_token_id=pad,
    )
    model = transformers.MarianMTModel(of_marian).eval()

    def translate(source: np.ndarray, target_length: int, beam_size: int) -> None:
        inputs = torch.tensor(source, dtype=torch.long)
        with torch.inference_mode():
            output = model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                num_beams=beam_size,
                do_sample=False,
                use_cache=True,
                min_new_tokens=target_length,
                max_new_tokens=target_length,
            )
        assert output.shape == (len(source), 1 + target_length), output.shape  # 1: the start

    name = f"Marian, transformers {transformers.__version__} float32"
    return Opponent(name, sizes.decoder_layers, translate)


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is missing: pip install -e '.[opponents]'") from error


def _save_random_weights(config: Config, vocabulary: list[str], folder: Path) -> None:
    """Saves a CTranslate2 model."""
    specs, sizes = _package("ctranslate2").specs, config.model
    layers = (sizes.encoder_layers, sizes.decoder_layers)
    spec = specs.TransformerSpec.from_config(
        layers, sizes.decoder_heads, pre_norm=False, activation=specs.Activation.RELU
    )
    random, d, f = np.random.default_rng(0), sizes.decoder_dim, sizes.decoder_ff_dim
    table = _normal(random, len(vocabulary), d)
    spec.encoder.embeddings[0].weight = table
    spec.decoder.embeddings.weight = table
    spec.decoder.projection.weight = table
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
    """Sets the LayerNorm of a sub-layer and its linear layers, each of (outputs, inputs)."""
    for linear, (outputs, inputs) in zip(linears, sizes, strict=True):
        linear.weight = _normal(random, outputs, inputs)
        linear.bias = np.zeros(outputs, np.float32)
    dim = sizes[-1][0]
    sublayer.layer_norm.gamma = np.ones(dim, np.float32)
    sublayer.layer_norm.beta = np.zeros(dim, np.float32)


def _normal(random: np.random.Generator, outputs: int, inputs: int) -> np.ndarray:
    return np.float32(inputs**-0.5) * random.standard_normal((outputs, inputs), np.float32)
