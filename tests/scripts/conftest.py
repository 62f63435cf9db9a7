# SPDX-License-Identifier: Apache-2.0
"""A trained workdir for the scripts."""

import fcntl
import os
from pathlib import Path

import jax
import pytest

import train
from tests.scripts.calls import POLICIES, TINY, succeed


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir with a tiny model trained for 4 steps; all workers share it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    workdir = folder / "trained"
    with (folder / "trained.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not workdir.exists():
            unfinished = folder / "unfinished"
            _train(unfinished)
            unfinished.rename(workdir)
    return workdir


@pytest.fixture
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes scripts decode on one device."""
    first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for module in ("runs.workdir", "export.safetensors"):
        monkeypatch.setattr(f"dat_jax.{module}.on_local_devices", lambda: first)


def _train(workdir: Path) -> None:
    result = succeed(train.main, *TINY, f"--workdir={workdir}", "--config.training.steps=4")
    rows = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("| ")]
    assert rows == ["policy", *POLICIES]
    samples = [line for line in result.stdout.splitlines() if line.startswith("tuned:confidence")]
    assert len(samples) == 3
    assert all("</s>₁" in line or "</s>₂" in line for line in samples if "</s>" in line)
