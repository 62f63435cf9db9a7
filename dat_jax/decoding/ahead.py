# SPDX-License-Identifier: Apache-2.0
"""What a policy knows of exits before block 1: then no decision is left on the way."""

import jax.numpy as jnp

from dat_jax.decoding.parts import Parts
from dat_jax.exits.policies import Policy, Signal, Uniform, exit_depth
from dat_jax.exits.sampling import token_draws
from dat_jax.types import Array, Bool, Float, Int


def sentence_exits(
    parts: Parts, policy: Policy, memory: Float[Array, "B S E"], mask: Bool[Array, "B S"]
) -> Int[Array, " B"]:
    """The depth at which all tokens of each sentence exit (paper, section 3.2); N, above which no
    token goes, under a policy that decides for each token."""
    if not policy.signal.is_of_the_sentence:
        return jnp.full(len(memory), parts.num_layers, jnp.int32)
    signal = jnp.zeros(len(memory))
    if policy.signal is Signal.SENTENCE:
        signal = parts.sequence_logits(memory, mask)
    return jnp.broadcast_to(exit_depth(policy, signal, parts.num_layers), len(memory))


def token_exits(
    parts: Parts,
    policy: Policy,
    exits: Int[Array, " B"],
    numbers: Int[Array, " B"],
    positions: Int[Array, " B"],
    beam_size: int,
) -> Int[Array, "B J"]:
    """The depths at which the newest tokens exit, as far as they are known.

    Args:
        parts: the model.
        policy: when tokens exit.
        exits: what `sentence_exits` says of the sentences.
        numbers: of the sentences in the text.
        positions: of the newest tokens.
        beam_size: hypotheses of each sentence, J.
    """
    if not isinstance(policy, Uniform):
        return jnp.broadcast_to(exits[:, None], (len(exits), beam_size))
    draws = token_draws(policy.seed, numbers, positions, beam_size)
    return exit_depth(policy, draws, parts.num_layers)
