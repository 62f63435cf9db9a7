# SPDX-License-Identifier: Apache-2.0
"""The origin of figures: the code, the config and the device."""

import dataclasses
import functools
import hashlib
import json
import subprocess
from pathlib import Path

from dat_jax import decoding
from dat_jax.config import Config, DecodingConfig
from dat_jax.decoding.trained import TrainedModel
from dat_jax.evaluation.summary import Origin
from dat_jax.exits.parsing import Policy
from dat_jax.runtime.processes import count


def origin(trained: TrainedModel, policy: Policy, decoding: DecodingConfig) -> Origin:
    """Returns the fields of a summary that tell the policy, the model and the code."""
    return {
        "policy": policy.name,
        "thresholds": getattr(policy.rule, "thresholds", None),
        "shortlist": decoding.shortlist,
        "trailing_gap": decoding.trailing_gap,
        "device": describe_device(trained),
        "checkpoint_step": trained.steps[0],
        "averaged_checkpoints": len(trained.steps),
        "seed": trained.config.training.seed,
        "config_sha256": hash_config(trained.config),
        "commit": describe_commit(),
        "engine_sha256": hash_engine(),
    }


def describe_commit() -> str:
    """Returns the commit of this checkout, with `-dirty` if files were changed."""
    root = Path(__file__).resolve().parents[2]
    command = ["git", f"--git-dir={root / '.git'}", f"--work-tree={root}"]
    command += ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@functools.cache
def hash_engine() -> str:
    """The first digits of the sha256 of the sources of `dat_jax.decoding`, in the order of their
    names: figures of one engine have one."""
    digest = hashlib.sha256()
    for path in sorted(Path(decoding.__file__).parent.glob("*.py")):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def hash_config(config: Config) -> str:
    """Returns the sha256 of all settings of a run."""
    text = json.dumps(dataclasses.asdict(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def describe_device(trained: TrainedModel) -> str:
    """Returns number and kind of the devices that hold the model, over all processes."""
    return f"{count() * len(trained.devices)} x {trained.device.device_kind}"
