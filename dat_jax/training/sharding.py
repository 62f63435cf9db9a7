# SPDX-License-Identifier: Apache-2.0
"""Sharding of a training over several devices, and the collectives between them.

The rows of a batch are split among all devices. Parameters and Adam moments are replicated
(`replicated`) or split too (`fsdp`): each array along its longest axis that the number of devices
divides, or not at all if there is none. Each step gathers whole parameters once, runs each device's
rows, and sums gradients once.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from dat_jax.config import Sharding
from dat_jax.errors import UserError

Tree = TypeVar("Tree")

DATA = "data"  # the mesh's axis
WHOLE = PartitionSpec()
ROWS = PartitionSpec(DATA)


def data_parallel_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with one axis, `data`, over all devices or those given."""
    devices = devices or jax.devices()
    return jax.make_mesh((len(devices),), (DATA,), (AxisType.Auto,), devices=devices)


def check_sharding(sharding: Sharding, devices: int) -> None:
    """Checks that fsdp has more than one device to split parameters among.

    Raises:
        UserError: it has not.
    """
    if sharding == "fsdp" and devices == 1:
        raise UserError(
            "training.sharding is fsdp and there is only one device: set it to replicated"
        )


def shared_out(shapes: Tree, mesh: Mesh, sharding: Sharding) -> Tree:
    """Adds a sharding to each array in a tree of shapes, such as a training state's.

    Raises:
        UserError: `sharding` is fsdp and no array can be split.
    """
    devices = mesh.size
    check_sharding(sharding, devices)
    shares = sharding == "fsdp"
    specs = jax.tree.map(lambda x: _spec(x.shape, devices) if shares else WHOLE, shapes)
    if shares and all(spec == WHOLE for spec in jax.tree.leaves(specs)):
        raise UserError(
            f"training.sharding is fsdp and no axis of a parameter is a multiple of {devices}, the "
            "number of devices: set it to replicated"
        )
    return jax.tree.map(
        lambda x, spec: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec)),
        shapes,
        specs,
    )


def specs_of(tree: Any) -> Any:
    """Returns the partition spec of each array in a tree from `shared_out`."""
    return jax.tree.map(lambda x: x.sharding.spec, tree)


def gather(shares: Tree, specs: Any) -> Tree:
    """Gathers whole parameters on each device from their shares, inside `jax.shard_map`.

    They are marked as varying over devices, so that JAX does not sum gradients where they are used.
    """

    def whole(share: jax.Array, spec: PartitionSpec) -> jax.Array:
        if spec == WHOLE:
            return jax.lax.pcast(share, DATA, to="varying")
        return jax.lax.all_gather(share, DATA, axis=spec.index(DATA), tiled=True)

    return jax.tree.map(whole, shares, specs)


def own_rows(rows: int, mesh: Mesh) -> Int[np.ndarray, " B"]:
    """Returns the indices of the batch rows on this process's devices, for a batch of `rows`."""
    parts = NamedSharding(mesh, ROWS).addressable_devices_indices_map((rows,)).values()
    return np.unique(np.concatenate([np.arange(rows)[part] for part in parts]))


def share_out_rows(own: Tree, mesh: Mesh) -> Tree:
    """Builds global batches, split over all devices, from the rows that each process has read."""
    sharding = NamedSharding(mesh, ROWS)

    def whole(ids: np.ndarray) -> jax.Array:
        rows = len(ids) * mesh.size // len(mesh.local_devices)
        numbers = own_rows(rows, mesh)

        def of_device(index: Any) -> np.ndarray:
            return ids[np.isin(numbers, np.arange(rows)[index[0]])]

        return jax.make_array_from_callback((rows, *ids.shape[1:]), sharding, of_device)

    return jax.tree.map(whole, own)


def whole(shares: Tree) -> Tree:
    """Returns all values of a tree from `shared_out`, as NumPy arrays, in every process."""
    mesh = jax.tree.leaves(shares)[0].sharding.mesh
    return jax.tree.map(np.asarray, _replicate(mesh)(shares))


@functools.cache
def _replicate(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda shares: shares, out_shardings=NamedSharding(mesh, WHOLE))


def add_up(gradients: Tree, specs: Any) -> Tree:
    """Sums the gradients of all devices; each keeps its share. The inverse of `gather`."""

    def share(gradient: jax.Array, spec: PartitionSpec) -> jax.Array:
        if spec == WHOLE:
            return jax.lax.psum(gradient, DATA)
        axis = spec.index(DATA)
        return jax.lax.psum_scatter(gradient, DATA, scatter_dimension=axis, tiled=True)

    return jax.tree.map(share, gradients, specs)


def _spec(shape: tuple[int, ...], devices: int) -> PartitionSpec:
    axes = [axis for axis, size in enumerate(shape) if size % devices == 0]
    if not axes:
        return WHOLE
    longest = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*[None] * longest, DATA)
