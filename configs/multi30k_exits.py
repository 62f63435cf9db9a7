# SPDX-License-Identifier: Apache-2.0
"""Multi30k, German to English, second phase: an exit head on top of configs/multi30k_de_en.py.

    python train.py --config=configs/multi30k_exits.py --workdir=runs/multi30k_exits \
        --config.training.initial_workdir=runs/multi30k --config.data.source=text:DIR

The paper's two phases are two runs here: this one starts from the parameters of the first with a
new optimizer state, and trains model and head together.
"""

from ml_collections import ConfigDict

from configs import multi30k_de_en


def get_config() -> ConfigDict:
    """Returns a halting unit after each block, trained with the likelihood oracle."""
    config = multi30k_de_en.get_config()
    add_head(config)
    config.optimizer.learning_rate = 5e-4

    config.training.initial_workdir = "runs/multi30k"
    config.training.steps = 1_500
    config.training.validate_every = 300
    config.training.checkpoint_every = 300
    return config


def add_head(config: ConfigDict) -> None:
    """Adds the exit head that was chosen on validation data of Multi30k, and how it is trained."""
    config.model.exit_head = "token_geometric"
    config.model.halting_weights = "per_depth"
    config.exit.oracle = "likelihood"
    config.exit.exit_penalty = 0.05
    config.exit.loss_weight = 0.1

    config.training.loss_weights = "1/sqrt_n"
    config.optimizer.warmup_steps = 200
