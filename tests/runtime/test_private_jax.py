# SPDX-License-Identifier: Apache-2.0
"""The private parts of JAX that we use exist; a new version of JAX may change them."""

import re
from pathlib import Path

import pytest
from jax._src.clusters import ClusterEnv

from dat_jax.runtime.private_jax import cluster, runtime

PACKAGE = Path(__file__).resolve().parents[2] / "dat_jax"
KNOWN = {"slurm", "gcetpu", "gketpu"}


def test_the_runtime_has_what_we_use():
    for name in ("client", "process_id", "preemption_sync_manager"):
        assert hasattr(runtime, name)
    assert callable(runtime.initialize_preemption_sync_manager)


def test_jax_knows_our_clusters():
    assert {kind.name for kind in ClusterEnv._cluster_types} >= KNOWN


def test_slurm_is_recognised_if_it_starts_several_processes(monkeypatch: pytest.MonkeyPatch):
    assert cluster({"slurm"}) is None
    for name, value in {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "a",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
    }.items():
        monkeypatch.setenv(name, value)
    assert cluster({"slurm"}) == "slurm"
    assert cluster({"gketpu"}) is None
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert cluster({"slurm"}) is None


def test_no_other_file_uses_private_parts():
    users = {
        path.name
        for path in PACKAGE.rglob("*.py")
        if re.search(r"jax\._src|jaxlib\._", path.read_text(encoding="utf-8"))
    }
    assert users == {"private_jax.py"}
