# SPDX-License-Identifier: Apache-2.0
"""IWSLT'14, German to English: the paper's small setting (section 4, table 1).

    python train.py --config=configs/iwslt14_de_en.py --workdir=runs/iwslt14 \
        --config.data.source=text:DIR

DIR holds train.de, train.en, valid.de and so on: 160,239 / 7,283 / 6,750 pairs of TED talks,
tokenised and lower-cased by fairseq's script. The script drops training pairs with a side of more
than 175 words or more than 1.5 times the words of the other side, and holds out every 23rd of the
rest for validation, so `data.max_length_ratio` and `data.valid_every` are off. Meant for one GPU.
The paper reports 34.9 tokenised BLEU at exits 4 to 6 on test; `bleu_tokenizer = "none"` computes
the same BLEU on this text. Time and score of this config: not measured yet.

From the paper: dimensions, 6 blocks, 6 separate classifiers, nothing tied, dropout 0.3, 8k tokens
per batch, clipping at 3, 50,000 updates, beam 5. Not in the paper, and taken from recipes of the
time: the vocabulary of 10,000, the learning rate, warm-up, betas, weight decay and label smoothing.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the paper's IWSLT'14 setting."""
    config = base.get_config()
    config.data.source = "text:data/iwslt14_de_en"
    config.data.vocabulary = "separate"
    config.data.vocabulary_size = 10_000
    config.data.max_length = 176

    config.model.decoder_layers = 6
    config.model.encoder_layers = 6
    config.model.encoder_dim = 512
    config.model.encoder_ff_dim = 1024
    config.model.encoder_heads = 4
    config.model.decoder_dim = 256
    config.model.decoder_ff_dim = 1024
    config.model.decoder_heads = 4
    config.model.norm = "post"
    config.model.classifiers = "per_exit"
    config.model.embeddings = "untied"
    config.model.dropout = 0.3

    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 4_000
    config.optimizer.weight_decay = 1e-4
    config.optimizer.clip_norm = 3.0

    config.training.steps = 50_000
    config.training.batch_tokens = 8_192
    config.training.label_smoothing = 0.1
    config.decoding.beam_size = 5
    config.decoding.bleu_tokenizer = "none"
    return config
