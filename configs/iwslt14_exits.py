# SPDX-License-Identifier: Apache-2.0
"""IWSLT'14, German to English, second phase: an exit head on top of configs/iwslt14_de_en.py.

    python train.py --config=configs/iwslt14_exits.py --workdir=runs/iwslt14_exits \
        --config.training.initial_workdir=runs/iwslt14 --config.data.source=text:DIR

The paper's best result on this data: a halting unit with the correctness oracle, sigma 0, lambda
0.1; 34.7 tokenised BLEU on test at an average exit of 1.42 of 6, with tuned thresholds. Not in the
paper: alpha, the number of updates and their learning rate, and whether the optimizer state is
reset (here it is). Meant for one GPU; time and score: not measured yet.
"""

from ml_collections import ConfigDict

from configs import iwslt14_de_en


def get_config() -> ConfigDict:
    """Returns token geometric exits, trained with the correctness oracle."""
    config = iwslt14_de_en.get_config()
    config.model.exit_head = "token_geometric"
    config.exit.oracle = "correctness"
    config.exit.exit_penalty = 0.1
    config.exit.oracle_smoothing = 0.0
    config.exit.loss_weight = 0.1

    config.training.initial_workdir = "runs/iwslt14"
    config.training.steps = 10_000
    config.optimizer.learning_rate = 2e-4
    config.optimizer.warmup_steps = 500
    return config
