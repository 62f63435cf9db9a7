# SPDX-License-Identifier: Apache-2.0
"""Parts of JAX that have no public name: all that this package uses, in one place."""

from typing import Any

from jax._src import distributed
from jax._src.clusters import ClusterEnv

runtime: Any = distributed.global_state
"""The state of JAX's distributed runtime: `client`, `process_id` and `preemption_sync_manager`."""


def cluster(names: set[str]) -> str | None:
    """Returns which of these clusters started this process as one of several, by JAX's names."""
    for kind in ClusterEnv._cluster_types:
        if kind.name in names and kind.is_env_present():
            return kind.name if kind.get_process_count() > 1 else None
    return None
