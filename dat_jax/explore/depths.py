# SPDX-License-Identifier: Apache-2.0
"""The values of given translations at every exit, from one teacher-forced pass.

All tokens run through all blocks, so no state is a copy, as in `dat_jax.evaluation.forced`.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dat_jax.config import ExitConfig
from dat_jax.data.batching import Batch
from dat_jax.data.vocabulary import PAD
from dat_jax.decoding.search import Ids
from dat_jax.decoding.trained import TrainedModel, rows_on
from dat_jax.evaluation.forced import batches
from dat_jax.exits.oracles import oracle_scores, token_oracle
from dat_jax.model.transformer import Transformer
from dat_jax.runtime.jax_flags import our_modes
from dat_jax.teacher_forcing import forward, log_likelihood, map_exits
from dat_jax.types import Array, Params

LIKELIEST = 5  # tokens to keep at each exit


class Depths(NamedTuple):
    """A given translation, token by token, at each exit of a model that has all exits."""

    token_ll: np.ndarray  # [N, T] log-likelihood of the token
    likeliest: np.ndarray  # [N, T, top] the likeliest tokens of the vocabulary, best first
    probabilities: np.ndarray  # [N, T, top] of these; the first is the confidence
    halting: np.ndarray  # [N-1, T] halting probabilities; [0, T] without a token_geometric head
    oracle: np.ndarray  # [T] the depth that the run's oracle chooses if this is the reference
    agreement: np.ndarray  # [T] the first depth that predicts what the last exit predicts


@our_modes()
def depths_of(
    trained: TrainedModel, sources: Sequence[Ids], targets: Sequence[Ids]
) -> list[Depths]:
    """Runs given translations through all exits.

    Args:
        trained: the model.
        sources: token ids that end with EOS, up to `dat_jax.evaluation.forced.longest` of them.
        targets: the translation of each source, the same.
    """
    found: dict[int, Depths] = {}
    for members, batch in batches(trained, sources, targets):
        placed = jax.device_put(batch, rows_on(trained.devices))
        values = _depths(trained.model, trained.params, placed, trained.config.exit)
        values = jax.tree.map(np.asarray, values)
        for row, index in enumerate(members):
            length = len(targets[index])
            *by_exit, oracle, agreement = values
            cut = (leaf[:, row, :length] for leaf in by_exit)
            found[index] = Depths(*cut, oracle[row, :length], agreement[row, :length])
    return [found[index] for index in range(len(sources))]


@partial(jax.jit, static_argnames=("model", "exits"))
def _depths(
    model: Transformer, params: Params, batch: Batch, exits: ExitConfig
) -> tuple[Array, ...]:
    """Returns the fields of `Depths` for a batch: [N, B, T] and so on."""
    outputs, target = forward(model, params, batch), jnp.asarray(batch.target)

    def one_exit(_: Array, logits: Array) -> tuple[Array, Array, Array]:
        logits = logits.astype(jnp.float32)
        count = min(LIKELIEST, logits.shape[-1])
        greatest, tokens = jax.lax.top_k(logits, count)
        normaliser = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        return log_likelihood(logits, target), tokens, jnp.exp(greatest - normaliser)

    token_ll, tokens, probabilities = map_exits(model, outputs, one_exit)
    mask, likeliest = target != PAD, tokens[..., 0]
    halting = jnp.zeros((0, *target.shape))
    if model.config.exit_head == "token_geometric":
        assert outputs.exit_logits is not None
        halting = jnp.moveaxis(jax.nn.sigmoid(outputs.exit_logits), -1, 0)
    correct = likeliest == target[None]
    return (
        token_ll,
        tokens,
        probabilities,
        halting,
        token_oracle(
            oracle_scores(exits.oracle, token_ll, correct, likeliest),
            mask,
            exit_penalty=exits.exit_penalty,
            smoothing=exits.oracle_smoothing,
        ),
        token_oracle(
            oracle_scores("agreement", token_ll, correct, likeliest),
            mask,
            exit_penalty=0.0,
            smoothing=0.0,
        ),
    )
