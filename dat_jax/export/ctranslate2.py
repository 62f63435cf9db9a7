# SPDX-License-Identifier: Apache-2.0
"""A model for CTranslate2: a folder that `ctranslate2.Translator` loads.

CTranslate2 has no exits: only the classifier of the last exit goes along. Its Transformer
is ours, except that it counts positions from 1 and that its LayerNorm adds 1e-5 to the variance. So
the folder states the encodings of positions, and the number to add.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dat_jax.config import Config
from dat_jax.config.schema import require
from dat_jax.decoding.trained import TrainedModel
from dat_jax.export.packages import needed
from dat_jax.model.classifiers import weights_of_exit
from dat_jax.model.embedding import sinusoids
from dat_jax.runtime.jax_flags import our_modes
from dat_jax.types import Params

_POSITIONS = 2_048  # of a sentence; CTranslate2 itself cuts sources at 1,024 unless told otherwise
_EPSILON = 1e-6  # of Flax's LayerNorm and of the classifiers'

_README = """\
# {languages}, {layers} decoder blocks, for CTranslate2

Run `pip install ctranslate2 sentencepiece`, then in this folder, with sentences{condition}:

    import ctranslate2, sentencepiece
    source, target = map(sentencepiece.SentencePieceProcessor, ("source.model", "target.model"))
    translator, pieces = ctranslate2.Translator("."), source.encode("zwei Uhr", out_type=str)
    print(target.decode(translator.translate_batch([pieces], {settings})[0].hypotheses[0]))
"""


def ctranslate2_writer(quantization: str | None) -> Callable[[TrainedModel, Path], None]:
    """Returns the function that writes a model into an empty folder.

    Args:
        quantization: the type of stored weights, one of CTranslate2's names, such as int8; by
            default float32.

    Raises:
        UserError: CTranslate2 is not installed, or has no such type.
    """
    specs = needed("ctranslate2.specs")
    types = needed("ctranslate2.specs.model_spec").ACCEPTED_MODEL_TYPES
    require(
        quantization in (None, *types),
        f"--quantization={quantization}: must be one of {', '.join(types)}",
    )

    def write(trained: TrainedModel, folder: Path) -> None:
        assert trained.vocabularies is not None
        spec = _spec(specs, trained)
        source, target = trained.vocabularies
        spec.register_source_vocabulary(source.pieces(range(source.size)))
        spec.register_target_vocabulary(target.pieces(range(target.size)))
        spec.validate()
        spec.optimize(quantization=quantization)
        spec.save(str(folder))
        (folder / "source.model").write_bytes(source.self_normalizing)
        (folder / "target.model").write_bytes(target.serialized)
        (folder / "README.md").write_text(_readme(trained.config), encoding="utf-8")

    return write


def _readme(config: Config) -> str:
    data, decoding = config.data, config.decoding
    search = f"beam_size={decoding.beam_size}, length_penalty={decoding.length_penalty}"
    nfc = " in the form NFC and with single blanks"
    return _README.format(
        languages=f"{data.source_language} to {data.target_language}",
        layers=config.model.decoder_layers,
        condition=nfc if data.source_normalization == "nfc" else "",
        settings=f"{search}, disable_unk=True",
    )


@our_modes()
def _spec(specs: ModuleType, trained: TrainedModel) -> Any:
    """Returns CTranslate2's description of the model, with all weights."""
    config = trained.config.model
    pre_norm = config.norm == "pre"
    spec = specs.TransformerSpec(
        specs.TransformerEncoderSpec(config.encoder_layers, config.encoder_heads, pre_norm),
        specs.TransformerDecoderSpec(config.decoder_layers, config.decoder_heads, pre_norm),
    )
    spec.config.layer_norm_epsilon = _EPSILON
    spec.config.add_source_eos = True
    classifiers: Any = trained.model.apply({"params": trained.params}, method="classifier_weights")
    classifier, params = jax.tree.map(np.array, (weights_of_exit(classifiers, -1), trained.params))
    encoder, decoder = spec.encoder, spec.decoder
    tied = config.embeddings == "tied"
    source = params["target_embedding" if tied else "source_embedding"]["table"]
    encoder.embeddings[0].weight, encoder.position_encodings.encodings = source, _positions(source)
    target = params["target_embedding"]["table"]
    decoder.embeddings.weight, decoder.position_encodings.encodings = target, _positions(target)
    decoder.projection.weight = classifier["table"]
    if pre_norm:
        _fill_norm(encoder.layer_norm, params["encoder"]["final_norm"])
        _fill_norm(decoder.layer_norm, classifier)
    for side, layers in ((encoder, "encoder"), (decoder, "decoder")):
        for index, layer in enumerate(side.layer):
            _fill_block(layer, jax.tree.map(lambda p, n=index: p[n], params[layers]["blocks"]))
    return spec


def _positions(table: np.ndarray) -> np.ndarray:
    """Returns the encodings of all positions for an embedding [V, M]."""
    return np.asarray(sinusoids(jnp.arange(_POSITIONS)[None], table.shape[1])[0])


def _fill_block(layer: Any, block: Params) -> None:
    """Sets the weights of an encoder or decoder block."""
    own = block["self_attention"]
    _fill_norm(layer.self_attention.layer_norm, block["self_residual"]["norm"])
    _fill_linear(layer.self_attention.linear[0], own["query"], own["key"], own["value"])
    _fill_linear(layer.self_attention.linear[1], own["output"])
    if "memory_attention" in block:
        memory = block["memory_attention"]
        _fill_norm(layer.attention.layer_norm, block["memory_residual"]["norm"])
        _fill_linear(layer.attention.linear[0], memory["query"])
        _fill_linear(layer.attention.linear[1], memory["key"], memory["value"])
        _fill_linear(layer.attention.linear[2], memory["output"])
    _fill_norm(layer.ffn.layer_norm, block["ff_residual"]["norm"])
    _fill_linear(layer.ffn.linear_0, block["feed_forward"]["Dense_0"])
    _fill_linear(layer.ffn.linear_1, block["feed_forward"]["Dense_1"])


def _fill_linear(linear: Any, *parts: Params) -> None:
    """Sets a linear layer to the concatenated outputs of projections of one input.

    Kernels are [M, H, K] for queries, keys and values, [H, K, D] for the output, and [M, M]
    elsewhere; CTranslate2's are [outputs, inputs].
    """
    biases = [part["bias"].reshape(-1) for part in parts]
    kernels = [
        part["kernel"].reshape(-1, bias.size).T for part, bias in zip(parts, biases, strict=True)
    ]
    linear.weight, linear.bias = np.concatenate(kernels), np.concatenate(biases)


def _fill_norm(norm: Any, weights: Params) -> None:
    norm.gamma, norm.beta = weights["scale"], weights["bias"]
