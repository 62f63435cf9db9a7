# SPDX-License-Identifier: Apache-2.0
"""What threshold rules see at each depth of the reference tokens, from one teacher-forced pass."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dat_jax.data.batching import Batch, one_pass, shapes_for
from dat_jax.data.tokens import TokenFile
from dat_jax.data.vocabulary import EOS, PAD
from dat_jax.decoding.top_tokens import score_shortlist, top_of_shortlist
from dat_jax.decoding.trained import TrainedModel, rows_on
from dat_jax.exits.questions import Block, Classified, Need
from dat_jax.exits.thresholds import Thresholded
from dat_jax.model.classifiers import classify, weights_of_exit
from dat_jax.model.transformer import Transformer
from dat_jax.runtime.jax_flags import our_modes
from dat_jax.teacher_forcing import forward, log_likelihood, map_exits
from dat_jax.types import Array, Params

_BATCH_TOKENS = 4_096  # per device; more if `_ROWS` rows need more
_ROWS = 8


class Observed(NamedTuple):
    """Values of each reference token from one pass, without padding."""

    signal: Float[np.ndarray, "L tokens"]  # what the rule compares with thresholds
    first: int  # the depth of the first signal
    token_ll: Float[np.ndarray, "N tokens"]  # the reference's log-likelihood at each exit
    source_length: Int[np.ndarray, " tokens"]  # of the sentence, EOS included
    step: Int[np.ndarray, " tokens"]  # the position in its sentence, from 1


@our_modes()
def observe(
    trained: TrainedModel, file: TokenFile, kind: type[Thresholded], shortlist: int
) -> Observed:
    """Runs all exits over the references in `file` once, on all devices that hold the model.

    With a shortlist, exits above the first see its words alone; 0 for all tokens.
    """
    devices = len(trained.devices)
    longest = max(file.header.longest_source, file.header.longest_target)
    batch_tokens = devices * max(_BATCH_TOKENS, _ROWS * longest)
    num_shapes = trained.config.training.num_shapes
    shapes = shapes_for([file], num_shapes, batch_tokens, devices * _ROWS)
    signals, token_lls, source_lengths, steps = [], [], [], []
    for batch in one_pass(file, shapes):
        rows = jax.device_put(batch, rows_on(trained.devices))
        signal, token_ll = _observe_batch(trained.model, trained.params, rows, kind, shortlist)
        real = batch.target != PAD
        signals.append(np.asarray(signal)[:, real])
        token_lls.append(np.asarray(token_ll)[:, real])
        row, column = np.nonzero(real)
        source_lengths.append(np.sum(batch.source != PAD, axis=1)[row])
        steps.append(column + 1)
    signal, token_ll = np.concatenate(signals, axis=1), np.concatenate(token_lls, axis=1)
    lengths, step = np.concatenate(source_lengths), np.concatenate(steps)
    return Observed(signal, kind.first, token_ll, lengths, step)


@partial(jax.jit, static_argnames=("model", "kind", "shortlist"))
def _observe_batch(
    model: Transformer, params: Params, batch: Batch, kind: type[Thresholded], shortlist: int
) -> tuple[Float[Array, "L B T"], Float[Array, "N B T"]]:
    target = jnp.asarray(batch.target)
    outputs = forward(model, params, batch)
    _, states, weights, exit_logits = outputs
    classifies = Need.CLASSIFIER in kind.needs

    def one_exit(depth: Array, logits: Array) -> tuple[Array, Array | None]:
        token_ll = log_likelihood(logits, target)
        if not classifies:
            return token_ll, None
        signal = kind.signal(_classified(depth, logits, every_token))
        if shortlist:
            among = jnp.take_along_axis(logits, proposed, axis=-1)
            deeper = kind.signal(_classified(depth, among, proposed))
            signal = jnp.where(depth == 1, signal, deeper)
        return token_ll, signal

    first = classify(weights_of_exit(weights, 0), states[0])
    likely = first.at[..., : EOS + 1].set(jnp.inf)  # special tokens are always proposed, and first
    proposed = jax.lax.top_k(likely, min(EOS + 1 + shortlist, likely.shape[-1]))[1]
    every_token = jnp.broadcast_to(jnp.arange(first.shape[-1]), first.shape)
    token_ll, signal = map_exits(model, outputs, one_exit)
    if signal is None:
        return _signals_of_blocks(kind, states, exit_logits), token_ll
    return signal[kind.first - 1 : -1], token_ll


def _classified(
    depth: Int[Array, ""], logits: Float[Array, "B T V"], tokens: Int[Array, "B T V"]
) -> Classified:
    """Returns what a rule sees of these tokens' logits, the special tokens first."""
    top = top_of_shortlist(score_shortlist(logits, tokens), 2, EOS)
    depths = jnp.full(logits.shape[:-1], depth)
    return Classified(depths, logits, top.normaliser, top.logits, top.tokens)


def _signals_of_blocks(
    kind: type[Thresholded], states: Float[Array, "N B T D"], exit_logits: Array | None
) -> Float[Array, "L B T"]:
    """The signals of a rule that looks at the states before and after a block."""
    signals = []
    for depth in range(kind.first, len(states)):
        before: Any = states[depth - 2] if depth > 1 else None  # embeddings are not kept
        logits = None
        if Need.HALTING_LOGIT in kind.needs:
            assert exit_logits is not None
            logits = exit_logits[..., depth - 1]
        depths = jnp.full(states.shape[1:-1], depth)
        signals.append(kind.signal(Block(depths, before, states[depth - 1], logits)))
    return jnp.stack(signals)
