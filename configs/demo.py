# SPDX-License-Identifier: Apache-2.0
"""A generated corpus of numbers, dates and amounts in words: no download, minutes on a laptop."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.data.vocabulary_size = 500

    config.model.num_layers = 6
    config.model.encoder_layers = 2
    config.model.encoder_dim = 64
    config.model.encoder_ff_dim = 256
    config.model.encoder_heads = 4
    config.model.decoder_dim = 64
    config.model.decoder_ff_dim = 256
    config.model.decoder_heads = 4
    config.model.dropout = 0.0

    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 300

    config.training.steps = 1_200
    config.training.batch_tokens = 2_048
    config.training.label_smoothing = 0.0
    config.training.validate_every = 300
    config.training.checkpoint_every = 300
    config.decoding.beam_size = 1
    return config
