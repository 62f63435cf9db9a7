# SPDX-License-Identifier: Apache-2.0
"""Tatoeba, German to English: 160,000 short sentences of everyday language.

    python train.py --config=configs/tatoeba_de_en.py --workdir=runs/tatoeba \
        --config.data.source=text:DIR

DIR holds train.de, train.en, valid.de and so on, made from the German-English pairs of tatoeba.org.
Meant for one GPU; possible, but slow, on a CPU. Time and score: not measured yet.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the defaults with an encoder as wide as the decoder and more dropout."""
    config = base.get_config()
    config.data.source = "text:data/tatoeba"
    config.data.vocabulary_size = 8_000
    config.data.max_length = 64

    config.model.encoder_dim = 256
    config.model.dropout = 0.2

    config.optimizer.learning_rate = 1e-3
    config.training.steps = 20_000
    config.decoding.average_checkpoints = 5
    return config
