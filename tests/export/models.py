# SPDX-License-Identifier: Apache-2.0
"""Tiny models to export: random, with vocabularies, and with translations that end."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from dat_jax.api import TranslationModel
from dat_jax.data.sources.generated import GeneratedCorpus
from dat_jax.data.vocabulary import BOS, EOS, PAD, UNK, Vocabularies, Vocabulary, train_vocabulary
from dat_jax.decoding.trained import TrainedModel, on_local_devices
from dat_jax.runs.workdir import make_model
from dat_jax.types import Params
from tests.tiny import random_params, tiny_config

PAIRS = list(GeneratedCorpus(300, 0).pairs("train"))
LENGTHS = range(17, 33)  # pieces of a source: one room, that is one program
LIMIT = 24
UNLIKELY = -12.0  # the logit of what a search does not write


class Kind(NamedTuple):
    """A model to export."""

    model: dict[str, Any]
    depth: int
    eos: float  # the logit of EOS, by which sentences end, some early and some late


KINDS = {
    "post, widths differ": Kind({}, 3, 3.0),
    "pre, per exit, widths differ": Kind({"norm": "pre", "classifiers": "per_exit"}, 3, 3.0),
    "post, tied": Kind({"embeddings": "tied"}, 3, 3.0),
    "pre, target": Kind({"norm": "pre", "embeddings": "target"}, 2, 3.0),
    "post, per exit": Kind({"classifiers": "per_exit", "exit_head": "token_geometric"}, 2, 3.0),
    "pre, shared": Kind({"norm": "pre", "exit_head": "sequence_multinomial"}, 1, 3.0),
    "last": Kind({"exits": "last"}, 3, 3.0),
}


@functools.cache
def make(kind: str) -> TranslationModel:
    """The model of a kind, at full depth."""
    model, _, eos = KINDS[kind]
    joint = model.get("embeddings") == "tied"
    data = {"vocabulary": "joint" if joint else "separate"}
    config = tiny_config(data=data, model=model, decoding={"beam_size": 1})
    vocabularies = joint_vocabularies() if joint else separate_vocabularies()
    transformer = make_model(config, vocabularies)
    params = jax.device_put(_ending(random_params(transformer, 3), eos), on_local_devices())
    return TranslationModel(TrainedModel(config, transformer, params, vocabularies, (7, 5)))


def sources(model: TranslationModel) -> list[str]:
    """Sentences of about one length."""
    assert model.trained.vocabularies is not None
    encode = model.trained.vocabularies.source.encode
    lines = [source for source, _ in PAIRS]
    return [line for line, ids in zip(lines, encode(lines), strict=True) if len(ids) in LENGTHS]


@functools.cache
def separate_vocabularies() -> Vocabularies:
    """Vocabularies of different sizes, with their usual normalisation."""
    source, target = (
        train_vocabulary([pair[side] for pair in PAIRS], size, "bpe")
        for side, size in enumerate((150, 120))
    )
    return Vocabularies(Vocabulary(source, "nmt_nfkc"), Vocabulary(target, "nfc"))


@functools.cache
def joint_vocabularies() -> Vocabularies:
    """One vocabulary for both sides."""
    pieces = train_vocabulary([line for pair in PAIRS for line in pair], 180, "bpe")
    return Vocabularies(Vocabulary(pieces, "nmt_nfkc"), Vocabulary(pieces, "nfc"))


def _ending(params: Params, eos: float) -> Params:
    """Gives EOS a logit, and PAD, UNK and BOS an unlikely one, whatever the state is.

    The LayerNorm before a classifier ends with a bias, the same for all exits. A row along that
    bias has a logit that hardly depends on the state.
    """
    dim = params["decoder"]["blocks"]["ff_residual"]["norm"]["bias"].shape[1]
    bias = np.random.default_rng(1).normal(size=dim).astype(np.float32)
    row = bias / (bias @ bias)

    def changed(path: tuple[Any, ...], leaf: jax.Array) -> np.ndarray:
        name, values = jax.tree_util.keystr(path, simple=True, separator="."), np.array(leaf)
        if name in ("decoder.blocks.ff_residual.norm.bias", "classifiers.bias"):
            values[:] = bias
        elif name in ("target_embedding.table", "classifiers.table"):
            values -= (values @ bias)[..., None] * row
            values[..., [PAD, UNK, BOS], :] = UNLIKELY * row
            values[..., EOS, :] = eos * row
        elif name.endswith("scale"):
            values = 1 + values / 2
        else:
            values *= 0.3 if name.endswith("bias") else 1 if "feed_forward" in name else 2
        return values

    return jax.tree_util.tree_map_with_path(changed, params)
