# SPDX-License-Identifier: Apache-2.0
"""The files of a training run."""

from pathlib import Path
from typing import NamedTuple

from etils import epath


class TrainingFiles(NamedTuple):
    """The paths of all that training writes."""

    checkpoints: epath.Path
    last_saved: Path
    metrics: Path
    tensorboard: Path
    profile: Path
