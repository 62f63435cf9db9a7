# SPDX-License-Identifier: Apache-2.0
"""The places of arrays while several devices train one model, and what passes between these.

A batch's rows are shared out to all devices. Parameters and the optimizer's moments are whole on
each (`replicated`), or shared out too (`fsdp`): an array along its longest axis that the devices
divide, and whole where there is none. A device works on its rows with whole parameters, gathered
once before, and gradients are added up once after.
"""

from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from dat_jax.errors import UserError
from dat_jax.sections import Sharding

Tree = TypeVar("Tree")

DATA = "data"  # the mesh's axis
WHOLE = PartitionSpec()
ROWS = PartitionSpec(DATA)


def data_parallel_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of one axis, `data`, over all devices or those given."""
    devices = devices or jax.devices()
    return jax.make_mesh((len(devices),), (DATA,), (AxisType.Auto,), devices=devices)


def check_sharding(sharding: Sharding, devices: int) -> None:
    """Makes sure that there is more than one device to share parameters out to.

    Raises:
        UserError: there is not.
    """
    if sharding == "fsdp" and devices == 1:
        raise UserError(
            "training.sharding is fsdp and there is one device, which has to hold everything: "
            "set it to replicated"
        )


def shared_out(shapes: Tree, mesh: Mesh, sharding: Sharding) -> Tree:
    """Says of each array in a tree of shapes, such as a training state's, where it lies.

    Raises:
        UserError: there is nothing to be shared out.
    """
    devices = mesh.size
    check_sharding(sharding, devices)
    shares = sharding == "fsdp"
    specs = jax.tree.map(lambda x: _spec(x.shape, devices) if shares else WHOLE, shapes)
    if shares and all(spec == WHOLE for spec in jax.tree.leaves(specs)):
        raise UserError(
            f"training.sharding is fsdp and no parameter has an axis that {devices} devices "
            "divide: set it to replicated"
        )
    return jax.tree.map(
        lambda x, spec: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec)),
        shapes,
        specs,
    )


def specs_of(tree: Any) -> Any:
    """The axis of each array that is shared out, if any, from what `shared_out` says."""
    return jax.tree.map(lambda x: x.sharding.spec, tree)


def gather(shares: Tree, specs: Any) -> Tree:
    """Makes parameters whole on a device, from its share of them; within `jax.shard_map`.

    They count as the device's own then, so that nothing is added up where they are used.
    """

    def whole(share: jax.Array, spec: PartitionSpec) -> jax.Array:
        if spec == WHOLE:
            return jax.lax.pcast(share, DATA, to="varying")
        return jax.lax.all_gather(share, DATA, axis=spec.index(DATA), tiled=True)

    return jax.tree.map(whole, shares, specs)


def own_rows(rows: int, mesh: Mesh) -> Int[np.ndarray, " B"]:
    """The rows of a batch of so many that lie on this process's devices, in their order."""
    parts = NamedSharding(mesh, ROWS).addressable_devices_indices_map((rows,)).values()
    return np.unique(np.concatenate([np.arange(rows)[part] for part in parts]))


def share_out_rows(own: Tree, mesh: Mesh) -> Tree:
    """Makes whole batches of the rows that each process has read, on all devices."""
    sharding = NamedSharding(mesh, ROWS)

    def whole(ids: np.ndarray) -> jax.Array:
        rows = len(ids) * mesh.size // len(mesh.local_devices)
        numbers = own_rows(rows, mesh)

        def of_device(index: Any) -> np.ndarray:
            return ids[np.isin(numbers, np.arange(rows)[index[0]])]

        return jax.make_array_from_callback((rows, *ids.shape[1:]), sharding, of_device)

    return jax.tree.map(whole, own)


def place(tree: Tree, like: Any) -> Tree:
    """Puts arrays that all processes have where those of `like` lie."""

    def placed(array: jax.Array, where: Any) -> jax.Array:
        values = np.asarray(array)
        return jax.make_array_from_callback(
            values.shape, where.sharding, lambda index: values[index]
        )

    return jax.tree.map(placed, tree, like)


def add_up(gradients: Tree, specs: Any) -> Tree:
    """Adds up the gradients of all devices, of which each keeps its share; the way back."""

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
