# SPDX-License-Identifier: Apache-2.0
"""Every key of a training config with its default; the other configs override some of them.

Set any key on the command line: `--config.SECTION.KEY=VALUE`.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the defaults: a small post-norm Transformer with an exit after each of 6 blocks."""
    config = ConfigDict()

    config.data = ConfigDict()
    # generated:[PAIRS] generates a corpus of numbers, dates and amounts with PAIRS training pairs;
    # text:DIR reads DIR/{train,valid,test}.{SOURCE,TARGET}, where the suffixes are the languages
    # below or the words src and tgt, and .gz may follow; the training text may instead be in parts,
    # train.PART.SOURCE and train.PART.TARGET, read in the order of their names; tfds:NAME reads a
    # translation data set of tensorflow-datasets. A source needs no test split.
    config.data.source = "generated:"
    # Another workdir whose prepared data this run uses and never changes, so that several runs
    # prepare a large text once. Its settings of the data must be those of this section. Copies its
    # vocabularies; refers to the rest, which must stay there. Empty: prepares its own.
    config.data.prepared = ""
    # ISO codes: suffixes of the text files, or keys of the tfds translation.
    config.data.source_language = "de"
    config.data.target_language = "en"
    # joint: one SentencePiece vocabulary for both languages; separate: one per language.
    config.data.vocabulary = "joint"
    # SentencePiece .model files to use instead of training vocabularies; copied. source_vocabulary
    # is that of both sides if vocabulary is joint; if separate, one may be given and the other
    # trained. Their ids of padding, unknown, start and end must be 0, 1, 2 and 3. If a file
    # normalises text itself, set the normalisation of its side below to none. Empty: trains one.
    config.data.source_vocabulary = ""
    config.data.target_vocabulary = ""
    # Pieces in each vocabulary that is trained, including the 4 special ones. At most 500,000
    # training pairs are used for that: of a larger set, a random sample that is always the same.
    config.data.vocabulary_size = 8_000
    # SentencePiece model type: unigram or bpe.
    config.data.pieces = "bpe"
    # Normalisation of each line before it is split into pieces. nmt_nfkc: SentencePiece's default,
    # folds compatibility characters ("…" to "...", "m²" to "m2"). nfc: composes characters and
    # collapses blanks, and changes nothing else; use it for the target, because after nmt_nfkc
    # some references could never be matched exactly. none: no normalisation.
    config.data.source_normalization = "nmt_nfkc"
    config.data.target_normalization = "nfc"
    # Drops training pairs with more pieces than this on either side, </s> included, and reports how
    # many.
    config.data.max_length = 128
    # Drops training pairs whose longer side has more than this many times the pieces of the shorter
    # one, </s> not counted, and reports how many. 0: off.
    config.data.max_length_ratio = 0.0
    # 0: the source has its own validation pairs. K: holds out every K-th training pair for
    # validation and ignores valid.* files.
    config.data.valid_every = 0
    # Seed of the generated corpus.
    config.data.seed = 0

    config.model = ConfigDict()
    # Number of decoder blocks, N in the paper. Only the decoder's depth adapts.
    config.model.decoder_layers = 6
    config.model.encoder_layers = 6
    config.model.encoder_dim = 512
    config.model.encoder_ff_dim = 1024
    config.model.encoder_heads = 4
    config.model.decoder_dim = 256
    config.model.decoder_ff_dim = 1024
    config.model.decoder_heads = 4
    # post: LayerNorm after each residual sum (the paper); pre: LayerNorm before each sub-layer.
    config.model.norm = "post"
    # all: an output classifier after every decoder block; last: only after the last block. With
    # last, decoder_layers = n gives the paper's n-layer baseline.
    config.model.exits = "all"
    # shared: one classifier for all exits; per_exit: one per exit.
    config.model.classifiers = "shared"
    # untied: nothing is shared; target: decoder embedding and classifier share one matrix (needs
    # classifiers = shared); tied: the encoder embedding shares it too (also needs a joint
    # vocabulary and encoder_dim = decoder_dim).
    config.model.embeddings = "untied"
    # Dropout on embeddings and on the output of each sub-layer.
    config.model.dropout = 0.1
    # Dropout on attention weights.
    config.model.attention_dropout = 0.0
    # Dropout on the hidden units of feed-forward layers.
    config.model.activation_dropout = 0.0
    # LayerDrop: in training, each sentence skips a decoder block with this probability.
    config.model.layer_drop = 0.0
    # constant: the same probability at all depths; rising: n/N of it at depth n.
    config.model.layer_drop_rates = "constant"
    # Compute dtype: float32 or bfloat16. Parameters, softmax and losses stay in float32.
    config.model.dtype = "float32"
    # none; or blocks: stores only the states between blocks and recomputes the rest in the backward
    # pass, which saves memory. The update is the same.
    config.model.rematerialisation = "none"
    # Predicts when to exit. none; sequence_multinomial: one depth per sentence, from the encoder's
    # output; token_multinomial: one depth per token, from its state after block 1;
    # token_geometric: a halting unit after each block.
    config.model.exit_head = "none"
    # token_geometric only. shared: one halting unit for all blocks, as in the paper's formula;
    # per_depth: one per block.
    config.model.halting_weights = "shared"
    # token_geometric only: initial bias of the halting units; below 0 tokens exit later at first.
    # The paper does not give a value.
    config.model.halting_bias = 0.0
    # token_geometric only: width of a hidden layer of ReLUs in each halting unit. 0: none, as in
    # the paper, whose unit is linear.
    config.model.halting_hidden = 0

    config.exit = ConfigDict()
    # Target of the exit head (paper, sections 3.2 and 3.3). likelihood: the exit where the
    # reference is likeliest; correctness: the exit that predicts most of its tokens correctly.
    # agreement, which the paper does not have: the first exit that predicts what the last one does,
    # right or wrong; of a sentence, the exit that does so for most of its tokens.
    config.exit.oracle = "correctness"
    # Lambda: cost of each block, in the oracle's unit (log-likelihood, correct tokens, or tokens
    # that agree). Any lambda below 1/(N-1) gives agreement the same target for unsmoothed tokens.
    config.exit.exit_penalty = 0.1
    # Sigma: in a token's oracle, a token at distance t has weight exp(-t^2 / sigma). 0: no
    # smoothing, each token uses only itself.
    config.exit.oracle_smoothing = 0.0
    # sequence_multinomial only: the oracle compares the mean or the sum over tokens. The paper's
    # formula has the sum, but its lambda of 0.02 makes sense only with the mean.
    config.exit.sequence_oracle = "mean"
    # sequence_multinomial only: a sentence's exit loss counts for each token (per_token, equation
    # 6) or once.
    config.exit.sequence_loss = "per_token"
    # Alpha in L_dec + alpha L_exit (equation 7). The paper does not give a value.
    config.exit.loss_weight = 0.1
    # What the exit loss trains. model_and_head: both (the paper). head: only the exit head; L_dec
    # still trains the model. head_alone: only the exit head; the model is frozen.
    config.exit.trains = "model_and_head"
    # Alpha is 0 for this many steps; head_alone freezes the model after them.
    config.exit.start_step = 0

    config.optimizer = ConfigDict()
    # Peak learning rate, reached by a linear warm-up over warmup_steps.
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 4_000
    # After warm-up. inverse_sqrt: proportional to 1/sqrt(step); constant: stays at the peak;
    # linear, cosine: reaches 0 one step after training.steps, so a run that has started cannot
    # change training.steps.
    config.optimizer.schedule = "inverse_sqrt"
    config.optimizer.beta1 = 0.9
    config.optimizer.beta2 = 0.98
    config.optimizer.epsilon = 1e-9
    # Decoupled weight decay, applied to matrices only.
    config.optimizer.weight_decay = 0.0
    # Clips gradients to this global norm. 0: off.
    config.optimizer.clip_norm = 3.0

    config.training = ConfigDict()
    config.training.steps = 50_000
    # Tokens per step, padding included: rows x the longer side of the batch's shape.
    config.training.batch_tokens = 8_192
    # Number of fixed batch shapes; each one is compiled once.
    config.training.num_shapes = 8
    # Splits each batch into this many pieces, run one after another, which saves memory. The update
    # is the same.
    config.training.microbatches = 1
    # Several devices always split the rows of a batch. replicated: each device holds all parameters
    # and Adam moments. fsdp: splits those too, which saves memory; gathers parameters before a step
    # and scatters gradients after it. The update is the same.
    config.training.sharding = "replicated"
    # aligned: trains all exits of every token, on states that ran all blocks below (section 3.1);
    # mixed: each token exits at a random depth, and its state is copied to the blocks above.
    config.training.mode = "aligned"
    # mixed only: random exit sequences per sentence, M in the paper.
    config.training.exit_samples = 1
    # mixed only: draws one depth per_token or per_sequence, uniformly. The paper says "random".
    config.training.exit_sampling = "per_token"
    # aligned only: gamma in gamma_n = gamma (N - n), the weight of exit n's loss in the gradient of
    # block n, where later losses have weight 1; gamma_N = 1 (paper, appendix A). Runs and
    # differentiates blocks twice. 0: off.
    config.training.gradient_scaling = 0.0
    # aligned only: multiplies the gradient that a block gets from the exits above it. 1: all of it,
    # as in the paper; 0: each block learns only from its own exit.
    config.training.gradient_from_above = 1.0
    # aligned only: weight of exit n's loss: 1, n, sqrt_n, 1/sqrt_n or 1/n (paper, appendix A).
    config.training.loss_weights = "1"
    config.training.label_smoothing = 0.1
    # Seed of initial parameters, dropout and batch order.
    config.training.seed = 0
    # Steps between log lines, validations and checkpoints.
    config.training.log_every = 50
    config.training.validate_every = 1_000
    config.training.checkpoint_every = 1_000
    # Keeps this many newest checkpoints and the best one, deletes the others.
    config.training.keep_checkpoints = 5
    # The best checkpoint is the one with the lowest validation loss (loss, of the decoder), with
    # the lowest loss of the exit head (exit_loss, for exit.trains = head_alone), or with the
    # highest BLEU at the deepest of bleu_exits (bleu). Only steps that are both measured and saved
    # are compared, so make validate_every (bleu_every for bleu) a multiple of checkpoint_every;
    # patience and bleu require it.
    config.training.best_by = "loss"
    # Ends training after this many measurements of best_by without improvement. 0: off.
    config.training.patience = 0
    # Steps between measurements of BLEU: translates the first validation sentences greedily, and
    # logs two of them. 0: off. One more compiled program for each exit, used all the time.
    config.training.bleu_every = 0
    # Number of validation sentences to translate. 0: all.
    config.training.bleu_sentences = 200
    # Depths of the exits to translate with, such as (2, 6). (): the deepest only.
    config.training.bleu_exits = ()
    # A step whose loss or gradient is not finite ends the run. Up to this many per launch are
    # skipped instead, without changing the parameters.
    config.training.skip_nonfinite = 0
    # Starts from the parameters trained in this workdir (averaged as that run decodes) with a new
    # optimizer state; initialises an exit head that they lack. If that model has exits = last or
    # classifiers = shared, this one may have exits = all and classifiers = per_exit: each exit
    # starts with a copy of its classifier. Empty: initialises all parameters.
    config.training.initial_workdir = ""
    # START-STOP: traces these steps into WORKDIR/profile, for TensorBoard. Empty: no trace. Choose
    # later steps: the first step of each batch shape compiles.
    config.training.profile = ""
    # Folder for the checkpoints of this run only: a path that starts with / or ~, or
    # gs://BUCKET/FOLDER, which needs `pip install gcsfs`. Empty: WORKDIR/checkpoints.
    config.training.checkpoint_folder = ""

    config.decoding = ConfigDict()
    # Decides when a token exits.
    # fixed[:DEPTH]: at DEPTH, by default after all blocks.
    # uniform[:SEED]: at a random depth, drawn for each token.
    # schedule:FIRST-LAST: at a depth that falls linearly with the token's position, from FIRST at
    # the first token to LAST at the longest translation allowed; rounded to the nearest depth,
    # halves to the deeper one.
    # sequence_multinomial, token_multinomial: at the likeliest depth by the exit head of that name.
    # token_geometric[:TAU]: once a halting probability is above TAU, by default 0.5.
    # confidence:TAU: once the probability of the likeliest token is above TAU.
    # margin:TAU: once it exceeds that of the next likeliest by more than TAU.
    # similarity:TAU: once the cosine of the states before and after a block is above TAU; from
    # block 2 on.
    # patience:K: once K exits in a row find the same token likeliest.
    # tuned[:KIND]:AE<=DEPTH: the policy with the best BLEU of those that `python -m dat_jax.tuning`
    # kept, none better at fewer FLOPs, with an average exit of at most DEPTH.
    # TAU is one number, or numbers separated by commas, one for each depth but the last; of
    # similarity, for each from 2 on.
    # decode.py and the library also take FILE.py:CLASS[:ARGUMENT], a rule of your own, but not from
    # a config: see docs/tutorial_exit_rule.md.
    config.decoding.policy = "fixed"
    # Policies that `train.py` evaluates in addition to the fixed exits, after tuning if need be.
    config.decoding.report_policies = ()
    # The split that `train.py` translates for its closing table: valid, or test, if the source has
    # it. With valid, models can be compared without looking at the test set.
    config.decoding.report_split = "valid"
    # Hypotheses per sentence; 1 is greedy search.
    config.decoding.beam_size = 5
    # Ranks hypotheses by log-probability / length ** length_penalty.
    config.decoding.length_penalty = 1.0
    # A translation has at most max_length_ratio * source length + max_length_extra pieces. Values
    # with which no sentence fits into memory are refused.
    config.decoding.max_length_ratio = 1.5
    config.decoding.max_length_extra = 16
    # BLEU's tokenizer. language: sacreBLEU's for the target language (zh for Chinese, char for
    # Japanese and Korean, 13a for all others). 13a, zh, char, intl: that one. none: the text is
    # tokenised already (tokenised BLEU). If it differs from the language's, bleu_default reports
    # BLEU with the language's too.
    config.decoding.bleu_tokenizer = "language"
    # Cuts longer sources to this many pieces, </s> included, and reports how many. 0: no limit. A
    # source that does not fit into memory is left blank, with a warning.
    config.decoding.max_source_length = 0
    # Sentences in work: decoded together. Speed and memory depend on this. 0: as many as are
    # efficient on the device, in at most a quarter of its memory. Fewer if they do not fit.
    config.decoding.batch_size = 0
    # For rules that classify after each block (confidence, margin, patience): the first exit scores
    # all tokens and proposes this many words, and deeper exits choose among them and the special
    # tokens. 0: every exit scores all tokens, as in the paper.
    config.decoding.shortlist = 0
    # For a beam and rules whose tokens exit each by itself: a hypothesis whose log-probability is
    # this many nats or more below that of its sentence's best exits at the first exit. 0: the rule
    # alone decides, as in the paper.
    config.decoding.trailing_gap = 0.0
    # Averages the parameters of this many last checkpoints, or of all if there are fewer.
    config.decoding.average_checkpoints = 1
    return config
