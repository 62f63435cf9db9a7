# SPDX-License-Identifier: Apache-2.0
"""The lockstep engine, the reference: every sentence of a batch takes the same step together.

A `lax.while_loop` over time that ends when the last sentence is done (paper, appendix B). With
each step every hypothesis gets one token, through as many decoder blocks as the policy asks for.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dat_jax.data.vocabulary import BOS, EOS, PAD
from dat_jax.decoding import beam
from dat_jax.decoding.beam import BeamState, Hypotheses
from dat_jax.decoding.cache import (
    LayerCache,
    claim,
    empty_layer,
    follow,
    no_ancestors,
    slots,
    visible,
    write,
)
from dat_jax.exits.policies import Policy
from dat_jax.model.blocks import DecoderBlock
from dat_jax.model.classifiers import classify, weights_of_exit
from dat_jax.model.transformer import Transformer
from dat_jax.types import Array, Int, Params


class _Loop(NamedTuple):
    """What one step hands to the next."""

    position: jax.Array  # [] tokens that every hypothesis has, unless it is done
    beams: BeamState
    layers: tuple[LayerCache, ...]
    ancestors: jax.Array  # [B, J, T]


@partial(
    jax.jit,
    static_argnames=("model", "policy", "beam_size", "length_penalty", "max_length"),
)
def search(
    model: Transformer,
    params: Params,
    source: Int[Array, "B S"],
    limits: Int[Array, " B"],
    *,
    policy: Policy,
    beam_size: int,
    length_penalty: float,
    max_length: int,
) -> tuple[Hypotheses, Int[Array, ""]]:
    """Translates a batch by beam search, or greedily with a beam of 1.

    Args:
        model: the model.
        params: its parameters.
        source: padded source tokens; rows of nothing but padding are welcome.
        limits: the most tokens that each translation may have, EOS counted.
        policy: when tokens exit.
        beam_size: hypotheses of a sentence, J.
        length_penalty: the exponent of the length that divides a log-probability.
        max_length: room for tokens, T; no limit may be greater.

    Returns:
        The best hypothesis of each sentence, and how often a decoder block was run on one row,
        rows of done sentences and of padding included.
    """
    config = model.config
    batch, heads = source.shape[0], config.decoder_heads
    width, dtype = config.decoder_dim // heads, jnp.dtype(config.dtype)
    source_mask = source != PAD

    def apply(method: str, *arguments: Array) -> Any:
        return model.apply({"params": params}, *arguments, method=method)

    def run_block(variables: Params, *arguments: Any, method: str = "__call__") -> Any:
        return block.apply(variables, *arguments, method=method)

    block = DecoderBlock(config, parent=None)
    blocks = _unstack(params["decoder"]["blocks"], policy.depth)
    memory = apply("encode", source, source_mask)
    memory_slots = [run_block(b, memory, method="memory_keys_values") for b in blocks]
    exit_index = config.exit_depths.index(policy.depth)
    classifier = weights_of_exit(apply("classifier_weights"), exit_index)

    def step(loop: _Loop) -> _Loop:
        tokens = beam.last_tokens(loop.beams, BOS)
        positions = jnp.broadcast_to(loop.position, (1, beam_size))
        x = apply("embed", tokens, positions)
        ancestors = claim(loop.ancestors, loop.position)
        mask = visible(ancestors)
        layers = []
        for variables, cache, memory_kv in zip(blocks, loop.layers, memory_slots, strict=True):
            keys_values = run_block(variables, x, method="self_keys_values")
            cache = write(cache, loop.position, keys_values)
            x = run_block(variables, x, slots(cache), mask, memory_kv, source_mask[:, None, :])
            layers.append(cache)
        beams, parents = beam.advance(
            loop.beams,
            jax.nn.log_softmax(classify(classifier, x)),
            jnp.full((batch, beam_size), policy.depth),
            length_penalty=length_penalty,
            eos_id=EOS,
            pad_id=PAD,
        )
        return _Loop(loop.position + 1, beams, tuple(layers), follow(ancestors, parents))

    start = _Loop(
        jnp.zeros((), jnp.int32),
        beam.init(limits, beam_size, max_length, PAD),
        tuple(empty_layer(batch, max_length, beam_size, heads, width, dtype) for _ in blocks),
        no_ancestors(batch, beam_size, max_length),
    )
    end = jax.lax.while_loop(lambda loop: ~jnp.all(beam.done(loop.beams)), step, start)
    rows_run = end.position * batch * beam_size * policy.depth
    return beam.best(end.beams), rows_run


def _unstack(blocks: Params, depth: int) -> list[dict[str, Params]]:
    """The variables of the first `depth` blocks, one by one.

    Indexing the stack inside the loop would copy a block's weights at every step.
    """
    return [{"params": jax.tree.map(lambda p, n=n: p[n], blocks)} for n in range(depth)]
