# SPDX-License-Identifier: Apache-2.0
"""Keys for decoding with a trained model: `python decode.py --workdir=DIR [--config.KEY=VALUE]`.

An unset key of the first group takes its value from the run: the section `decoding` of the
workdir's `config.json`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the defaults: translates the split `test` with the run's own settings."""
    config = ConfigDict()
    # The section `decoding` of configs/base.py explains these.
    # policy may also be FILE.py:CLASS[:ARGUMENT], a rule of your own: see
    # docs/tutorial_exit_rule.md. Its file runs.
    config.policy = placeholder(str)
    config.beam_size = placeholder(int)
    config.length_penalty = placeholder(float)
    config.max_length_ratio = placeholder(float)
    config.max_length_extra = placeholder(int)
    config.batch_size = placeholder(int)
    config.average_checkpoints = placeholder(int)
    config.bleu_tokenizer = placeholder(str)
    config.max_source_length = placeholder(int)
    config.shortlist = placeholder(int)
    config.trailing_gap = placeholder(float)

    # The model. best: the checkpoint that was best on validation data (training.best_by); last: the
    # last one; STEP: that of a step; `python -m dat_jax.info` lists them. Empty: the mean of the
    # last average_checkpoints. Give this or average_checkpoints, not both.
    config.checkpoint = ""
    # The split to translate, valid or test of the prepared data. Ignored if input is set.
    config.split = "test"
    # A file to translate, one sentence per line, or - for standard input. For standard input or a
    # pipe, prints each translation at once.
    config.input = ""
    # The form of what is printed for standard input or a pipe: text, or jsonl, an object for each
    # line with text, pieces, exits and score (and nbest). For other input, see the files below.
    config.format = "text"
    # Hypotheses to give for each sentence, up to beam_size; 0 or 1: the best alone. Writes them to
    # nbest.txt, best first, as lines `index ||| text ||| score` with the index of the sentence from
    # 0, and as nbest to exits.jsonl. For standard input or a pipe, prints these lines as text.
    config.n_best = 0
    # A file of translations to score instead of translating, one for each line of input or split,
    # or - for standard input: the log-probability of each token at each exit, from one pass, and
    # the exits that the policy chooses on the states of that pass. Writes scores.jsonl and
    # summary.json; for standard input or a pipe, prints the lines of scores.jsonl.
    config.score = ""
    # A file of references for input, with as many lines: scores the translations against them.
    config.reference = ""
    # Folder for hypotheses.txt, exits.jsonl and summary.json, and nbest.txt if asked for. Replaces
    # earlier results of the same request, and refuses a folder that holds anything else. Empty: a
    # folder in the workdir, named after input, policy (with a checksum of its file, if it has one),
    # beam and other settings that differ from the run's; none for standard input or a pipe.
    config.output = ""
    # Continues unfinished results in that folder, after the last complete window of lines; starts
    # from the beginning if there are none. Needs an input that can be read twice.
    config.resume = False
    return config
