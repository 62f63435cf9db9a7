# SPDX-License-Identifier: Apache-2.0
"""Compiles for devices that this machine lacks: TPUs by libtpu, GPUs by JAX's CUDA plugin."""

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from dat_jax.errors import UserError

_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
  registers_per_block_limit: 65536 driver_version: "13.0.0" runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0" dnn_version: "9.10.0"
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""

# Without these, libtpu asks the machine which TPU it has.
_TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_THUNKS = "*thunk_sequence_after_thunk_passes.txt"


class Target(NamedTuple):
    """A kind of device."""

    platform: str  # JAX's name for it when lowering
    topology: str
    wheels: dict[str, str]  # modules that compiling needs, and the packages that install them


_LIBTPU = {"libtpu": "jax[tpu]"}
_CUDA = {
    "jax_plugins.xla_cuda13": "jax-cuda13-plugin and jax-cuda13-pjrt, of jax's version",
    "nvidia.cu13": "nvidia-cuda-nvcc and nvidia-nvvm",
}
TARGETS = {
    "tpu:v4": Target("tpu", "v4:2x2x1", _LIBTPU),
    "tpu:v5e": Target("tpu", "v5e:2x2", _LIBTPU),
    "tpu:v6e": Target("tpu", "v6e:2x2", _LIBTPU),
    "gpu:h100": Target("cuda", "1x1x1", _CUDA),
}


class Compiled(NamedTuple):
    """A compiled program and the text that its compiler printed."""

    memory: Any  # bytes of arguments, temporaries and code
    text: str
    thunks: str  # the launches, for GPUs


def find_target(name: str) -> Target:
    """Returns the target of this name.

    Raises:
        UserError: there is none, or its compiler is not installed.
    """
    if name not in TARGETS:
        raise UserError(f"--target is {name!r}: must be one of {', '.join(TARGETS)}")
    for module, package in TARGETS[name].wheels.items():
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:  # its parent package
            found = None
        if found is None:
            raise UserError(f"--target={name} needs {package}: install it with pip")
    return TARGETS[name]


def make_mesh(target: Target, count: int, topology: str = "") -> Mesh:
    """Returns a mesh of one axis, `data`, over the first `count` devices of a topology."""
    os.environ.update(_TPU_ENVIRONMENT)
    options = {"topology_name": topology or target.topology}
    if target.platform == "cuda":
        options = {"target_config": _H100, "topology": target.topology}
    devices = topologies.get_topology_desc(platform=target.platform, **options).devices
    return Mesh(np.asarray(devices[:count]), ("data",), (AxisType.Auto,))


def compile_for(target: Target, lowered: jax.stages.Lowered) -> Compiled:
    """Compiles a program that was lowered for the devices of a target."""
    if target.platform != "cuda":
        compiled = lowered.compile()
        return Compiled(compiled.memory_analysis(), compiled.as_text() or "", "")
    toolkit = importlib.util.find_spec("nvidia.cu13")
    assert toolkit is not None
    (folder,) = toolkit.submodule_search_locations or [""]
    os.environ["PATH"] = f"{folder}/bin:{os.environ['PATH']}"
    options = {"xla_gpu_cuda_data_dir": folder, "xla_dump_hlo_as_text": True}
    options["xla_gpu_autotune_level"] = "0"  # it would time kernels
    with tempfile.TemporaryDirectory() as dump:
        compiled = lowered.compile(options | {"xla_dump_to": dump})
        thunks = [path.read_text() for path in Path(dump).glob(_THUNKS)]
        return Compiled(compiled.memory_analysis(), compiled.as_text() or "", max(thunks, key=len))
