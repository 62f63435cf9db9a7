# SPDX-License-Identifier: Apache-2.0
"""FLOPs of the decoder, by the paper's formula (appendix B).

A linear layer from d_in to d_out costs 2 d_in d_out. Non-linearities, norms, residual sums and the
encoder are not counted.
"""

from typing import Any

import numpy as np
from jaxtyping import Int

from dat_jax.config import ModelConfig
from dat_jax.data.vocabulary import EOS
from dat_jax.exits.questions import Need, Rule, Scope


def computed_block(config: ModelConfig, source_length: Any, step: Any) -> Any:
    """Returns FC, the cost of a block for token `step` (from 1), without projecting the memory;
    of numbers or arrays."""
    dim, hidden = config.decoder_dim, config.decoder_ff_dim
    return 12 * dim**2 + 4 * hidden * dim + 4 * step * dim + 4 * source_length * dim


def memory_projections(config: ModelConfig, source_length: Any) -> Any:
    """Returns the cost of a block's keys and values of the memory, computed once per sentence; of a
    number or an array."""
    return 4 * source_length * config.decoder_dim * config.encoder_dim


def classifier(config: ModelConfig, vocabulary_size: int) -> int:
    """Returns the cost of one product with the classifier's table."""
    return 2 * vocabulary_size * config.decoder_dim


def copied_state(config: ModelConfig) -> int:
    """Returns FS, the cost of a skipped block's keys and values from the copied state."""
    return 4 * config.decoder_dim**2


def halting_unit(config: ModelConfig) -> int:
    """Returns the cost of one halting unit for one state, with its hidden layer if it has one."""
    hidden = config.halting_hidden
    return 2 * config.decoder_dim * hidden + 2 * hidden if hidden else 2 * config.decoder_dim


def exit_prediction(
    config: ModelConfig,
    vocabulary_size: int,
    rule: Rule,
    exits: Int[np.ndarray, " tokens"],
    sentences: int,
    shortlist: int = 0,
) -> int:
    """Returns FP, the cost of exit prediction, summed over all tokens of some sentences.

    Rules that classify need a classifier's product after each block that runs; the last one also
    chooses the token, so it is not counted here. Above the first exit, a shortlist limits the
    product to its words and the special tokens. A halting unit counts for the last block too, as in
    the paper. A sentence's head reads the encoder's output and has its width.
    """
    dim, tokens, blocks = config.decoder_dim, len(exits), int(np.sum(exits))
    scored = min(shortlist + EOS + 1, vocabulary_size) if shortlist else vocabulary_size
    costs = {
        Need.SENTENCE_LOGITS: 2 * config.decoder_layers * config.encoder_dim * sentences,
        Need.FIRST_STATE_LOGITS: 2 * config.decoder_layers * dim * tokens,
        Need.HALTING_LOGIT: halting_unit(config) * blocks,
        Need.CLASSIFIER: classifier(config, scored) * (blocks - tokens),
    }
    return sum(costs[need] for need in rule.needs) + rule.own_flops(config, exits)


def translation(
    config: ModelConfig,
    vocabulary_size: int,
    source_length: int,
    exits: Int[np.ndarray, " T"],
    rule: Rule,
    shortlist: int = 0,
) -> int:
    """Returns the FLOPs of one translation, as `translations` does.

    Args:
        config: the model's dimensions.
        vocabulary_size: the size of the target vocabulary.
        source_length: the number of source tokens, EOS included.
        exits: the exit depth q of each token of the translation, EOS included.
        rule: the exit rule.
        shortlist: the number of words that deeper exits choose among; 0 for all tokens.
    """
    steps = np.arange(1, len(exits) + 1)
    sources = np.full(len(exits), source_length)
    return translations(config, vocabulary_size, sources, steps, exits, rule, shortlist)


def translations(
    config: ModelConfig,
    vocabulary_size: int,
    source_length: Int[np.ndarray, " tokens"],
    step: Int[np.ndarray, " tokens"],
    exits: Int[np.ndarray, " tokens"],
    rule: Rule,
    shortlist: int = 0,
) -> int:
    """Returns the FLOPs of some translations: q FC + (N - q) FS + FP + 2 V d_d, summed over tokens.

    N counts only the blocks up to the depth that the rule says no token goes above.

    Args:
        config: the model's dimensions.
        vocabulary_size: the size of the target vocabulary.
        source_length: the number of source tokens of each token's sentence, EOS included.
        step: the position of each token in its sentence, from 1; sentences follow one another.
        exits: the exit depth q of each token, EOS included.
        rule: the exit rule; with one depth for all tokens of a text, or a depth that never rises
            along a sentence, no state is copied.
        shortlist: the number of words that deeper exits choose among; 0 for all tokens.
    """
    starts = np.flatnonzero(step == 1)
    used = np.maximum.reduceat(exits, starts) if len(starts) else exits  # blocks of each sentence
    first_calls = np.sum(used * memory_projections(config, source_length[starts]))
    blocks = np.sum(exits * computed_block(config, source_length, step))
    deepest = rule.deepest(config.decoder_layers)
    pays = rule.copies_states or rule.scope is Scope.SENTENCE  # the latter as in the paper
    skipped = int(np.sum(deepest - exits)) if pays else 0
    return (
        int(blocks)
        + int(first_calls)
        + skipped * copied_state(config)
        + exit_prediction(config, vocabulary_size, rule, exits, len(starts), shortlist)
        + len(exits) * classifier(config, vocabulary_size)
    )
