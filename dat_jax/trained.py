# SPDX-License-Identifier: Apache-2.0
"""A trained model: what decodes, without the data or the folder that it came from."""

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
from dat_jax.modes import our_modes
from dat_jax.types import Params

DEVICES = "devices"  # the axis of a mesh that decodes


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """Parameters, the model that they are of, and the config that it was trained with."""

    config: Config
    model: Transformer
    params: Params
    vocabularies: Vocabularies | None = None  # None: it reads and writes token ids alone
    steps: tuple[int, ...] = ()  # of the checkpoints that were averaged, newest first

    def __getstate__(self) -> dict[str, Any]:
        """Pickles the parameters as they are, without their place."""
        return vars(self) | {"params": jax.tree.map(np.asarray, self.params)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Places the parameters on all devices of this process, as if loaded."""
        with our_modes():
            params = jax.device_put(state["params"], on_local_devices())
        vars(self).update(state, params=params)

    @functools.cached_property
    def sha256(self) -> str:
        """A checksum of the parameters, by which a model is known again."""
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(self.params):
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()

    @property
    def devices(self) -> list[jax.Device]:
        """The devices that hold the parameters, each of them all."""
        devices = jax.tree.leaves(self.params)[0].devices()
        return sorted(devices, key=lambda device: device.id)

    @property
    def device(self) -> jax.Device:
        """The first of them."""
        return self.devices[0]


def on_local_devices() -> NamedSharding:
    """Places arrays on all devices of this process, each of which holds all of them."""
    return NamedSharding(mesh_of(jax.local_devices()), PartitionSpec())


def rows_on(devices: Sequence[jax.Device]) -> NamedSharding:
    """Places arrays on devices, each of which holds its share of the leading axis."""
    return NamedSharding(mesh_of(devices), PartitionSpec(DEVICES))


def mesh_of(devices: Sequence[jax.Device]) -> Mesh:
    """The devices on which one model decodes, in a row."""
    return Mesh(np.asarray(devices), (DEVICES,), (AxisType.Auto,))
