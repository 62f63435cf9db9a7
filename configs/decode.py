# SPDX-License-Identifier: Apache-2.0
"""Keys of decoding by a trained model: `python decode.py --workdir=runs/demo [--config.KEY=VALUE]`.

A key of the first group that is left unset has the value that the model was trained with, kept in
the workdir's `config.json` under `decoding`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Defaults: the split `test`, decoded as the run says."""
    config = ConfigDict()
    # The keys of `decoding` in configs/base.py.
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

    # What to translate: valid or test of the prepared data, or a file of lines, or - for standard
    # input. Its translations, and those of a pipe, are printed as they come. Translations of a file
    # are scored if there is a reference of as many lines.
    config.split = "test"
    config.input = ""
    config.reference = ""
    # The folder for hypotheses.txt, exits.jsonl and summary.json; by default one below the workdir
    # named after input, policy, beam and what is not as in the run, and none for standard input or
    # a pipe. Earlier results of the same request are replaced, and all else that is there is not.
    config.output = ""
    # Whether to go on with results there that were not finished, from the last whole window of
    # lines, or to start if there are none. It takes a file that can be read again.
    config.resume = False
    return config
