# SPDX-License-Identifier: Apache-2.0
"""Multi30k, German to English: 29,000 image captions, the smallest standard set.

    python train.py --config=configs/multi30k_de_en.py --workdir=runs/multi30k \
        --config.data.source=text:DIR

DIR holds train.de, train.en, valid.de and so on: the captions of the WMT multimodal task, with the
1,000 of 2016 as test: of github.com/multi30k/dataset, task 1, val.* as valid.* and
test_2016_flickr.* as test.*.

Sized for two CPU cores, where two trainings side by side take less than an hour: ten epochs, a
small vocabulary, small batches. docs/results.md has the scores. A wider model, trained for longer
on a GPU, was not measured.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns a small model with tied embeddings."""
    config = base.get_config()
    config.data.source = "text:data/multi30k"
    config.data.vocabulary_size = 2_000

    config.model.decoder_layers = 6
    config.model.encoder_layers = 3
    config.model.encoder_dim = 128
    config.model.encoder_ff_dim = 512
    config.model.encoder_heads = 4
    config.model.decoder_dim = 128
    config.model.decoder_ff_dim = 256
    config.model.decoder_heads = 4
    config.model.embeddings = "tied"
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 1.5e-3
    config.optimizer.warmup_steps = 1_000
    config.optimizer.schedule = "linear"

    config.training.steps = 6_000
    config.training.batch_tokens = 1_024
    config.training.num_shapes = 4
    config.training.validate_every = 1_500
    config.training.checkpoint_every = 300
    config.decoding.average_checkpoints = 3
    return config
