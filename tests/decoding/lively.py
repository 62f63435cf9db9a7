# SPDX-License-Identifier: Apache-2.0
"""Tiny models whose tokens and exits vary, source sentences, and the engine run on both."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dat_jax.data.vocabulary import EOS, PAD, UNK
from dat_jax.decoding import engine
from dat_jax.decoding.beam import Hypotheses
from dat_jax.decoding.queue import Queue
from dat_jax.decoding.settings import SearchSettings
from dat_jax.decoding.unstacked import unstack
from dat_jax.decoding.work import Work
from dat_jax.exits.questions import Rule
from dat_jax.model.transformer import Transformer
from dat_jax.types import Params
from tests.tiny import random_params, tiny_model

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
LIMITS = np.asarray([7, 5, 1, 7, 4, 6], np.int32)
NUMBERS = np.asarray([3, 1, 4, 15, 9, 2], np.int32)
ROWS = len(SOURCE)
ROOM = 20  # places of a queue, more than there are sentences

POST = {"norm": "post", "exit_head": "token_geometric"}
PRE = {
    "norm": "pre",
    "classifiers": "per_exit",
    "exit_head": "token_geometric",
    "halting_weights": "per_depth",
}
HIDDEN = PRE | {"classifiers": "shared", "halting_hidden": 5}
TIED = {
    "norm": "pre",
    "embeddings": "tied",
    "exit_head": "token_multinomial",
    "decoder_layers": 4,  # so that a state can be copied twice, and read by attention both times
}
KINDS = {  # the config, and a seed of parameters that give varied sentences and exits
    "post": (POST, 5),
    "pre": (PRE, 4),
    "hidden": (HIDDEN, 9),
    "tied": (TIED, 8),
    "per_exit": ({"classifiers": "per_exit", "exit_head": "sequence_multinomial"}, 16),
    "deep": (
        {"classifiers": "per_exit", "exit_head": "sequence_multinomial", "decoder_layers": 4},
        7,
    ),
    "last": ({"norm": "post", "exits": "last"}, 5),
    "post, tempted": (POST, 5),
    "pre, tempted": (PRE, 4),
}
TEMPTING = {"post": [8, 9], "pre": [6, 4]}  # words whose embeddings UNK and EOS imitate


@functools.cache
def make_model(kind: str) -> tuple[Transformer, Params]:
    """A model whose states differ enough between tokens and depths to vary its choices."""
    changes, seed = KINDS[kind]
    model = tiny_model(**changes)
    if kind == "last":  # "post" without its lower exits
        return model, make_model("post")[1]
    if kind.endswith(", tempted"):
        return model, _tempted(kind.removesuffix(", tempted"))

    def enliven(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path)
        if name.endswith("['scale']"):
            return 1 + leaf / 2
        return leaf * (0.3 if name.endswith("['bias']") else 1 if "feed_forward" in name else 2)

    return model, jax.tree_util.tree_map_with_path(enliven, random_params(model, seed))


def _tempted(kind: str) -> Params:
    """Parameters that make UNK likelier than one word, and EOS likelier than another."""
    params = make_model(kind)[1]
    classifiers = params["classifiers"]
    words = classifiers["table"][..., TEMPTING[kind], :]
    table = classifiers["table"].at[..., [UNK, EOS], :].set(2 * words)
    return params | {"classifiers": classifiers | {"table": table}}


def settings(
    beam_size: int,
    slots: int,
    refill: int | None = None,
    sizes: tuple[int, ...] = (),
    windows: tuple[int, ...] = (),
    projected: int = 99,
    shortlist: int = 0,
    trailing_gap: float = 0.0,
    n_best: int = 0,
) -> SearchSettings:
    """Search settings. The defaults are the plain algorithm: all slots are filled together, a block
    runs on all rows, attention reads all positions, and caches hold keys and values."""
    return SearchSettings(
        beam_size=beam_size,
        length_penalty=LENGTH_PENALTY,
        length=MAX_LENGTH,
        slots=slots,
        refill=refill or slots,
        sizes=(*sizes, slots * beam_size),
        windows=(*windows, MAX_LENGTH),
        projected=projected,
        shortlist=shortlist,
        trailing_gap=trailing_gap,
        n_best=n_best,
    )


def run(
    kind: str,
    beam_size: int,
    rule: Rule,
    queue: Queue | None = None,
    *,
    params: Params | None = None,
    slots: int | None = None,
    **how: Any,
) -> tuple[Hypotheses, Work]:
    """The engine's hypotheses for the sentences in the queue, and its work; by default all
    sentences are in work from the start."""
    model, own_params = make_model(kind)
    queue = make_queue() if queue is None else queue
    params = own_params if params is None else params
    how = settings(beam_size, slots or int(queue.count), **how)
    how = dataclasses.replace(how, projected=min(how.projected, model.config.decoder_layers))
    return _real(queue, engine.search(model, unstack(model, params), rule, queue, how))


def _real(queue: Queue, results: tuple[Hypotheses, Work]) -> tuple[Hypotheses, Work]:
    """Drops the empty places of the queue, after checking that they got no tokens."""
    hypotheses, work = jax.tree.map(np.asarray, results)
    count = int(queue.count)
    assert (hypotheses.lengths[count:] == 0).all()
    return jax.tree.map(lambda x: x[:count], hypotheses), work


def make_queue(
    source: np.ndarray = SOURCE,
    limits: np.ndarray = LIMITS,
    numbers: np.ndarray = NUMBERS,
) -> Queue:
    """A queue of these sentences, padded to ROOM places."""
    rows = ((0, max(ROOM - len(source), 0)),)
    arrays = (
        np.pad(source, (*rows, (0, 0)), constant_values=PAD),
        np.pad(limits, rows, constant_values=1),
        np.pad(numbers, rows),
    )
    return Queue(*map(jnp.asarray, (*arrays, np.int32(len(source)))))


def layers_run(work: Work) -> int:
    """The number of rows on which blocks were computed, summed over the blocks."""
    return int(work.computed[:-1].sum())
