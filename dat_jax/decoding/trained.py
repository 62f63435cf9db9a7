# SPDX-License-Identifier: Apache-2.0
"""A trained model: all that decoding needs, without the data or the workdir."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dat_jax.config import Config
from dat_jax.data.vocabulary import Vocabularies
from dat_jax.model.transformer import Transformer
from dat_jax.runtime.jax_flags import our_modes
from dat_jax.types import Params

DEVICES = "devices"  # the axis of the mesh for decoding


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """Parameters with their model, its config and its vocabularies."""

    config: Config
    model: Transformer
    params: Params
    vocabularies: Vocabularies | None = None  # None: reads and writes only token ids
    steps: tuple[int, ...] = ()  # of the averaged checkpoints, newest first

    def __getstate__(self) -> dict[str, Any]:
        """Pickles the parameters as NumPy arrays, without their devices."""
        return vars(self) | {"params": jax.tree.map(np.asarray, self.params)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Places the parameters on all local devices, as loading does."""
        with our_modes():
            params = jax.device_put(state["params"], on_local_devices())
        vars(self).update(state, params=params)

    @functools.cached_property
    def sha256(self) -> str:
        """Checksum of the parameters, to recognise a model."""
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(self.params):
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()

    @property
    def devices(self) -> list[jax.Device]:
        """The devices that hold the parameters, each a full copy."""
        devices = jax.tree.leaves(self.params)[0].devices()
        return sorted(devices, key=lambda device: device.id)

    @property
    def device(self) -> jax.Device:
        """The first of `devices`."""
        return self.devices[0]


def on_local_devices() -> NamedSharding:
    """Returns the sharding that replicates arrays on all devices of this process."""
    return NamedSharding(mesh_of(jax.local_devices()), PartitionSpec())


def rows_on(devices: Sequence[jax.Device]) -> NamedSharding:
    """Returns the sharding that splits the leading axis of arrays among devices."""
    return NamedSharding(mesh_of(devices), PartitionSpec(DEVICES))


def mesh_of(devices: Sequence[jax.Device]) -> Mesh:
    """Returns a one-dimensional mesh of devices that decode with one model."""
    return Mesh(np.asarray(devices), (DEVICES,), (AxisType.Auto,))
