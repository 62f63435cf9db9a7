# SPDX-License-Identifier: Apache-2.0
"""The lockstep engine against a search without cache, batch or loop on the device."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from dat_jax.data.vocabulary import EOS, PAD
from dat_jax.exits.policies import (
    Confidence,
    Fixed,
    Policy,
    SequenceMultinomial,
    TokenGeometric,
    TokenMultinomial,
    Uniform,
)
from dat_jax.model.transformer import Transformer
from dat_jax.types import Params
from tests.tiny import random_params, tiny_model

N = 3
LENGTH_PENALTY = 0.8
MAX_LENGTH = 7
SOURCE = np.asarray(
    [
        [5, 7, 4, 9, EOS],
        [8, 8, EOS, PAD, PAD],
        [EOS, PAD, PAD, PAD, PAD],
        [4, 5, 6, EOS, PAD],
        [10, 9, EOS, PAD, PAD],
        [6, 4, 10, 8, EOS],
    ],
    np.int32,
)
LIMITS = np.asarray([7, 5, 3, 7, 4, 6], np.int32)
NUMBERS = np.asarray([3, 1, 4, 15, 9, 2], np.int32)
ROWS = len(SOURCE)

POST = {"norm": "post", "exit_head": "token_geometric"}
PRE = {
    "norm": "pre",
    "classifiers": "per_exit",
    "exit_head": "token_geometric",
    "halting_weights": "per_depth",
}
KINDS = {  # the config, and the seed of parameters by which sentences and exits differ
    "post": (POST, 5),
    "pre": (PRE, 4),
    "tied": ({"norm": "pre", "embeddings": "tied", "exit_head": "token_multinomial"}, 2),
    "per_exit": ({"classifiers": "per_exit", "exit_head": "sequence_multinomial"}, 0),
    "last": ({"norm": "post", "exits": "last"}, 5),
}


class Case(NamedTuple):
    """A search over SOURCE. Cases that differ in a policy's numbers alone compile once."""

    kind: str
    beam_size: int
    policy: Policy

    def __str__(self) -> str:
        return f"{self.kind}-{self.policy}-beam{self.beam_size}"


CASES = [
    Case("post", 1, Fixed(1)),
    Case("post", 1, Fixed(2)),
    Case("post", 1, Fixed(3)),
    Case("post", 1, TokenGeometric((0.98, 0.96))),
    Case("post", 1, TokenGeometric((0.99, 0.5))),
    Case("post", 1, TokenGeometric((0.5, 0.99))),
    Case("post", 3, TokenGeometric((0.98, 0.96))),
    Case("post", 3, TokenGeometric((0.9, 0.9))),
    Case("pre", 3, Fixed(1)),
    Case("pre", 3, Fixed(2)),
    Case("pre", 3, Fixed(3)),
    Case("pre", 3, TokenGeometric((0.65, 0.05))),
    Case("pre", 3, TokenGeometric((0.9, 0.3))),
    Case("pre", 3, Confidence((0.51, 0.71))),
    Case("pre", 3, Confidence((0.7, 0.4))),
    Case("tied", 1, TokenMultinomial()),
    Case("tied", 3, TokenMultinomial()),
    Case("tied", 3, Uniform(N, 0)),
    Case("tied", 3, Uniform(N, 1)),
    Case("per_exit", 1, SequenceMultinomial()),
    Case("per_exit", 3, SequenceMultinomial()),
    Case("per_exit", 1, Confidence((0.6, 0.6))),
    Case("per_exit", 1, Confidence((0.9, 0.3))),
    Case("last", 1, Fixed(3)),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


@functools.cache
def make_model(kind: str) -> tuple[Transformer, Params]:
    """A model whose states differ enough between tokens and depths for its choices to vary."""
    changes, seed = KINDS[kind]
    model = tiny_model(**changes)

    def livelier(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        if path[-1].key in ("scale", "bias"):
            return 1 + leaf / 2 if path[-1].key == "scale" else leaf * 0.3
        return leaf if path[-3].key == "feed_forward" else leaf * 2

    return model, jax.tree_util.tree_map_with_path(livelier, random_params(model, seed))
