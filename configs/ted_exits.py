# SPDX-License-Identifier: Apache-2.0
"""TED talks, German to English, second phase: an exit head on top of configs/ted_de_en.py.

    python train.py --config=configs/ted_exits.py --workdir=runs/ted_exits \
        --config.training.initial_workdir=runs/ted --config.data.source=text:DIR
"""

from ml_collections import ConfigDict

from configs import ted_de_en


def get_config() -> ConfigDict:
    """Returns a halting unit after each block, trained with the likelihood oracle."""
    config = ted_de_en.get_config()
    config.model.exit_head = "token_geometric"
    config.model.halting_weights = "per_depth"
    config.exit.oracle = "likelihood"
    config.exit.exit_penalty = 0.05
    config.exit.loss_weight = 0.1

    config.optimizer.learning_rate = 4e-4
    config.optimizer.warmup_steps = 200

    config.training.initial_workdir = "runs/ted"
    config.training.loss_weights = "1/sqrt_n"
    config.training.steps = 1_000
    config.training.validate_every = 400
    config.training.checkpoint_every = 200
    return config
