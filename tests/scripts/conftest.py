# SPDX-License-Identifier: Apache-2.0
"""What the scripts work on: a trained workdir and a folder of text."""

from pathlib import Path

import pytest

import train
from tests.scripts.calls import POLICIES, TINY, succeed


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir in which a tiny model has been trained for 4 steps."""
    workdir = tmp_path_factory.mktemp("run")
    result = succeed(train.main, *TINY, f"--workdir={workdir}", "--config.training.steps=4")
    rows = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("| ")]
    assert rows == ["policy", *POLICIES]
    samples = [line for line in result.stdout.splitlines() if line.startswith("tuned:confidence")]
    assert len(samples) == 3
    assert all("</s>₁" in line or "</s>₂" in line for line in samples if "</s>" in line)
    return workdir
