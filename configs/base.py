# SPDX-License-Identifier: Apache-2.0
"""Every key of a training config with its default; the other configs change some of them.

Override any of them on the command line: `--config.section.key=value`.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The defaults: a small post-norm Transformer with an exit after each of 6 decoder blocks."""
    config = ConfigDict()

    config.data = ConfigDict()
    # generated:[PAIRS] makes a corpus of numbers, dates and amounts with PAIRS training pairs;
    # text:DIR reads DIR/{train,valid,test}.{src,tgt}, suffixes being the two languages below or
    # the words src and tgt; tfds:NAME reads a translation data set of tensorflow-datasets.
    config.data.source = "generated:"
    # ISO codes: the suffixes of text files, the keys of a tfds translation.
    config.data.source_language = "de"
    config.data.target_language = "en"
    # joint: one SentencePiece vocabulary for both languages; separate: one for each.
    config.data.vocabulary = "joint"
    # Pieces in each vocabulary, the 4 special ones included. Of more than 500,000 training pairs it
    # learns from so many, taken at random, the same each time.
    config.data.vocabulary_size = 8_000
    # The SentencePiece model: unigram or bpe.
    config.data.pieces = "bpe"
    # What happens to a line before it is cut into pieces, on each side. nmt_nfkc: SentencePiece's
    # default, which folds compatibility characters ("…" to "...", "m²" to "m2"); nfc: composed
    # characters and single blanks, all else as it was written, which a target needs or no
    # translation could be equal to its reference; none: nothing.
    config.data.source_normalization = "nmt_nfkc"
    config.data.target_normalization = "nfc"
    # Training pairs with a longer side, in pieces with </s>, are left out, counted and reported.
    # So are those whose longer side has more than max_length_ratio times the pieces of the shorter,
    # </s> aside; 0 is off.
    config.data.max_length = 128
    config.data.max_length_ratio = 0.0
    # 0: the source has validation pairs of its own; K: every K-th training pair is one, and none to
    # train on; valid.* files, if there are any, are not read then.
    config.data.valid_every = 0
    # Seeds the generated corpus.
    config.data.seed = 0

    config.model = ConfigDict()
    # Decoder blocks, N in the paper; the only depth that adapts.
    config.model.decoder_layers = 6
    config.model.encoder_layers = 6
    config.model.encoder_dim = 512
    config.model.encoder_ff_dim = 1024
    config.model.encoder_heads = 4
    config.model.decoder_dim = 256
    config.model.decoder_ff_dim = 1024
    config.model.decoder_heads = 4
    # post: LayerNorm after each residual sum (the paper's); pre: before each sub-layer.
    config.model.norm = "post"
    # all: an output classifier after every decoder block; last: only after the last one, which
    # with decoder_layers = n is the paper's n-layer baseline.
    config.model.exits = "all"
    # shared: one classifier for all exits; per_exit: one for each.
    config.model.classifiers = "shared"
    # untied: nothing is shared; target: decoder embedding and classifier are one matrix (needs a
    # shared classifier); tied: and the encoder's embedding too (needs a joint vocabulary and equal
    # dims).
    config.model.embeddings = "untied"
    # Of embeddings and of what a sub-layer adds to the residual stream.
    config.model.dropout = 0.1
    # Of attention's weights, and of the hidden units of feed-forward layers.
    config.model.attention_dropout = 0.0
    config.model.activation_dropout = 0.0
    # LayerDrop: a decoder block is passed over with this probability, drawn for each sentence of a
    # training batch, at all depths (constant) or, at depth n of N, with n/N of it (rising).
    config.model.layer_drop = 0.0
    config.model.layer_drop_rates = "constant"
    # What the model computes in: float32 or bfloat16. Parameters, softmax and losses are float32.
    config.model.dtype = "float32"
    # What training computes twice, to save memory: none; or blocks, of which the backward pass
    # finds only the states between them. The update is the same.
    config.model.rematerialisation = "none"
    # What predicts when to exit: none, sequence_multinomial (one depth for a sentence, from the
    # encoder's output), token_multinomial (a depth for each token, from its state after block 1)
    # or token_geometric (a halting unit after each block).
    config.model.exit_head = "none"
    # Of token_geometric: shared, one unit for all blocks, as the paper's formula reads; or
    # per_depth, one for each.
    config.model.halting_weights = "shared"
    # The halting units' bias before training; the paper does not say. Below 0 they start late.
    config.model.halting_bias = 0.0

    config.exit = ConfigDict()
    # What the exit head should learn to find (paper, sections 3.2 and 3.3): the exit at which the
    # reference is likeliest, or the one at which most of it is predicted right.
    config.exit.oracle = "correctness"
    # Lambda: what a block costs, in the oracle's unit (log-likelihood, or right tokens).
    config.exit.exit_penalty = 0.1
    # Sigma: tokens at distance t count exp(-t^2 / sigma) for a token's oracle; 0, itself alone.
    config.exit.oracle_smoothing = 0.0
    # Of sequence_multinomial: the oracle compares means over tokens or, as the paper's formula
    # reads, sums. The lambda that the paper names for it (0.02) makes sense for means alone.
    config.exit.sequence_oracle = "mean"
    # Of sequence_multinomial: a sentence's exit loss counts per_token (equation 6) or once.
    config.exit.sequence_loss = "per_token"
    # Alpha in L_dec + alpha L_exit (equation 7); the paper does not say.
    config.exit.loss_weight = 0.1
    # What the exit loss trains: model_and_head (the paper's); head, the model learns from L_dec
    # only; or head_alone, and nothing trains the model any longer.
    config.exit.trains = "model_and_head"
    # The exit loss counts after this many steps (alpha is 0 before), and head_alone begins there.
    config.exit.start_step = 0

    config.optimizer = ConfigDict()
    # The peak, to which it rises linearly in warmup_steps.
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 4_000
    # Then: inverse_sqrt, it falls with 1/sqrt(step); constant, it stays; linear or cosine, it falls
    # and would be 0 one step after training.steps, which such a run cannot change once begun.
    config.optimizer.schedule = "inverse_sqrt"
    config.optimizer.beta1 = 0.9
    config.optimizer.beta2 = 0.98
    config.optimizer.epsilon = 1e-9
    # Decoupled weight decay, on matrices only.
    config.optimizer.weight_decay = 0.0
    # Gradients are scaled down to this global norm; 0 is off.
    config.optimizer.clip_norm = 3.0

    config.training = ConfigDict()
    config.training.steps = 50_000
    # Tokens a step, padding included: rows x the longer side of the batch's shape.
    config.training.batch_tokens = 8_192
    # Batches come in this many fixed shapes; each compiles once.
    config.training.num_shapes = 8
    # A step's batch is run in this many pieces, to save memory; the update is the same.
    config.training.microbatches = 1
    # On several devices, each of which runs its share of a batch's rows: replicated, all of them
    # hold all parameters and Adam's moments; fsdp, they share them out too, to save memory, gather
    # parameters before a step and scatter gradients after it. The update is the same.
    config.training.sharding = "replicated"
    # aligned: all exits of every token learn from states that ran all blocks below (section 3.1);
    # mixed: each token exits at a depth drawn by chance, and its state is copied upward.
    config.training.mode = "aligned"
    # Of mixed: exit sequences drawn for a sentence, M in the paper.
    config.training.exit_samples = 1
    # Of mixed: a depth drawn per_token or per_sequence, uniformly. The paper says "random".
    config.training.exit_sampling = "per_token"
    # Gamma in gamma_n = gamma (N - n), by which block n's own loss counts more for its parameters
    # than later ones; gamma_N = 1 (paper, appendix A). 0 is off; else
    # blocks are run and differentiated twice.
    config.training.gradient_scaling = 0.0
    # Of aligned: how much of a block's gradient that comes from the exits above it reaches it: 1 is
    # all, as in the paper; with 0 each block learns from its own exit alone.
    config.training.gradient_from_above = 1.0
    # Of aligned: how much exit n counts: 1, n, sqrt_n, 1/sqrt_n or 1/n (paper, appendix A).
    config.training.loss_weights = "1"
    config.training.label_smoothing = 0.1
    # Seeds parameters, dropout and the order of batches.
    config.training.seed = 0
    config.training.log_every = 50
    config.training.validate_every = 1_000
    config.training.checkpoint_every = 1_000
    # Older checkpoints are deleted.
    config.training.keep_checkpoints = 5
    # A step whose loss or gradient is not finite ends the run; so many of one start may be passed
    # over instead, leaving all as it was.
    config.training.skip_nonfinite = 0
    # Start from the parameters trained in this workdir, averaged as it decodes, with a fresh
    # optimizer; an exit head that it lacks starts anew. Empty: start from nothing.
    config.training.initial_workdir = ""
    # START-STOP: trace these steps into WORKDIR/profile, for TensorBoard. Empty: none. The first
    # steps of a run, and of each batch shape, compile.
    config.training.profile = ""
    # Another folder for checkpoints, of this run alone: a path from / or ~ on, or gs://BUCKET/FOLDER,
    # which needs `pip install gcsfs`. Empty: WORKDIR/checkpoints.
    config.training.checkpoint_folder = ""

    config.decoding = ConfigDict()
    # When a token exits: fixed[:DEPTH], by default the full depth; uniform[:SEED], a depth by
    # chance for each token; the model's exit head, sequence_multinomial, token_multinomial or
    # token_geometric[:TAU], which exits once a halting probability is above TAU, 0.5 by default;
    # confidence:TAU, once the likeliest token's probability is. TAU is one number or N-1 with
    # commas. tuned[:KIND]:AE<=DEPTH takes what `python -m dat_jax.tuning` found for that budget.
    config.decoding.policy = "fixed"
    # Policies that `train.py` evaluates after the fixed exits; a tuned one is tuned first.
    config.decoding.report_policies = ()
    # 1 is greedy search.
    config.decoding.beam_size = 5
    # Hypotheses are ranked by log-probability / length ** length_penalty.
    config.decoding.length_penalty = 1.0
    # A translation has at most ratio * source length + extra pieces. Values with which no sentence
    # fits into memory are refused.
    config.decoding.max_length_ratio = 1.5
    config.decoding.max_length_extra = 16
    # How BLEU cuts translations and references into words. language: as sacreBLEU does for the
    # target language, zh for Chinese, char for Japanese and Korean, 13a for all others; or one of
    # 13a, zh, char, intl and, for text that is tokenised already, none: tokenised BLEU. If it is
    # another than the language's, that one's BLEU is told too, as bleu_default.
    config.decoding.bleu_tokenizer = "language"
    # Sources of more pieces, </s> included, are cut there, counted and reported; 0 for no limit.
    # One that does not fit into memory is left blank, with a warning.
    config.decoding.max_source_length = 0
    # The most sentences in work: decoded together; speed and memory depend on it. 0 is as many as
    # are efficient on the device, within a quarter of its memory. Of long sentences there are fewer
    # if they do not fit.
    config.decoding.batch_size = 0
    # Decode with the mean of the parameters of this many last checkpoints, or of all there are.
    config.decoding.average_checkpoints = 1
    return config
