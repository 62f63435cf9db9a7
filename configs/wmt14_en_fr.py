# SPDX-License-Identifier: Apache-2.0
"""WMT'14, English to French: the paper's large setting (section 4, figure 4).

    python train.py --config=configs/wmt14_en_fr.py --workdir=runs/wmt14

Downloads 41 million pairs through tensorflow-datasets, which takes some 16 GB of memory and hours
to prepare. Meant for a TPU slice or several GPUs. By the compiler's estimate for 16 chips of a TPU
v5e, a step takes 10.5 of the 15.75 GB of each chip; it has not been run there. With fewer or
smaller devices set `model.rematerialisation` to blocks (3.9 GB) or raise `training.microbatches`;
with one device, `training.sharding` must be replicated. The paper reports 43.6 tokenised BLEU at
exits 5 and 6 on test. This text is not tokenised, so its BLEU cannot be compared with that. Time
and score of this config: not measured.

From the paper: Transformer big with 6 blocks, one matrix for all embeddings and classifiers, 460k
tokens per batch, 50,000 updates, beam 4, the last 10 checkpoints averaged. Not in the paper:
dropout and the optimizer's settings other than clipping.

As in fairseq's script for this data, every 1333rd pair is held out for validation, and pairs with a
side of more than 250 pieces or more than 1.5 times the pieces of the other side are dropped. Two
differences: fairseq counts pieces of tokenised text, and the pairs are in another order here, so
the validation pairs differ.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the paper's WMT'14 setting."""
    config = base.get_config()
    config.data.source = "tfds:wmt14_translate/fr-en"
    config.data.source_language = "en"
    config.data.target_language = "fr"
    config.data.vocabulary = "joint"
    config.data.vocabulary_size = 44_000
    config.data.max_length = 251  # includes </s>
    config.data.max_length_ratio = 1.5
    config.data.valid_every = 1_333

    config.model.decoder_layers = 6
    config.model.encoder_layers = 6
    config.model.encoder_dim = 1024
    config.model.encoder_ff_dim = 4096
    config.model.encoder_heads = 16
    config.model.decoder_dim = 1024
    config.model.decoder_ff_dim = 4096
    config.model.decoder_heads = 16
    config.model.norm = "post"
    config.model.classifiers = "shared"
    config.model.embeddings = "tied"
    config.model.dropout = 0.1
    config.model.dtype = "bfloat16"

    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 4_000

    config.training.steps = 50_000
    config.training.batch_tokens = 458_752
    config.training.microbatches = 8
    config.training.sharding = "fsdp"
    config.training.keep_checkpoints = 10
    config.decoding.beam_size = 4
    config.decoding.average_checkpoints = 10
    return config
