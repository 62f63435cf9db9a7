# SPDX-License-Identifier: Apache-2.0
"""Multi30k, German to English: image captions."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.data.source = "text:data/multi30k"
    config.data.vocabulary_size = 4_000

    config.model.num_layers = 6
    config.model.encoder_layers = 3
    config.model.encoder_dim = 128
    config.model.encoder_ff_dim = 512
    config.model.encoder_heads = 4
    config.model.decoder_dim = 128
    config.model.decoder_ff_dim = 256
    config.model.decoder_heads = 4
    config.model.embeddings = "tied"
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 800

    config.training.steps = 4_000
    config.training.batch_tokens = 4_096
    config.training.validate_every = 200
    config.training.checkpoint_every = 200
    config.training.keep_checkpoints = 5
    config.decoding.average_checkpoints = 5
    return config
