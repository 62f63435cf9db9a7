# SPDX-License-Identifier: Apache-2.0
"""TED talks, German to English: a third of IWSLT'14's training pairs, at the paper's width.

    python train.py --config=configs/ted_de_en.py --workdir=runs/ted --config.data.source=text:DIR

DIR holds train.de, train.en, valid.de and so on: the 7,283 and 6,750 pairs for validation and test
of configs/iwslt14_de_en.py, tokenised and lower-cased, and 51,817 of its pairs for training, a
third. Other thirds will do, with somewhat other scores.

The decoder has the paper's six blocks of width 256. The encoder and the vocabulary are smaller than
in the paper, and all tables are tied, so that two CPU cores train it in 50 minutes.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the paper's decoder with a small encoder."""
    config = base.get_config()
    config.data.source = "text:data/ted"
    config.data.vocabulary_size = 4_000

    config.model.decoder_layers = 6
    config.model.encoder_layers = 3
    config.model.encoder_dim = 256
    config.model.encoder_ff_dim = 512
    config.model.encoder_heads = 4
    config.model.decoder_dim = 256
    config.model.decoder_ff_dim = 1024
    config.model.decoder_heads = 4
    config.model.embeddings = "tied"
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 800
    config.optimizer.schedule = "linear"

    config.training.steps = 4_000
    config.training.batch_tokens = 2_048
    config.training.num_shapes = 4
    config.training.validate_every = 1_000
    config.training.checkpoint_every = 200
    config.decoding.average_checkpoints = 3
    config.decoding.beam_size = 5
    config.decoding.bleu_tokenizer = "none"
    return config
