# SPDX-License-Identifier: Apache-2.0
"""TED talks, German to English, second phase: an exit head on top of configs/ted_de_en.py.

    python train.py --config=configs/ted_exits.py --workdir=runs/ted_exits \
        --config.training.initial_workdir=runs/ted --config.data.source=text:DIR
"""

from ml_collections import ConfigDict

from configs import multi30k_exits, ted_de_en


def get_config() -> ConfigDict:
    """Returns the head of configs/multi30k_exits.py on the model of configs/ted_de_en.py."""
    config = ted_de_en.get_config()
    multi30k_exits.add_head(config)
    config.optimizer.learning_rate = 4e-4

    config.training.initial_workdir = "runs/ted"
    config.training.steps = 1_000
    config.training.validate_every = 400
    config.training.checkpoint_every = 200
    return config
