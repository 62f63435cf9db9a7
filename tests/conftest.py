# SPDX-License-Identifier: Apache-2.0
"""Settings for all tests: eight CPU devices, strict broadcasting, kept compilations."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import pytest

# Compiling is most of what the tests do, and what they run is tiny: let LLVM not polish it, and let
# fusions be compiled without MLIR, by way of which a training step takes three times as long.
_FLAGS = " ".join(
    [
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters",  # nothing to JAX 0.12
    ]
)
if _FLAGS not in os.environ.get("XLA_FLAGS", ""):  # a worker inherits them, and keys would differ
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}".strip()

# Tracing makes objects by the million, hardly one of which is part of a cycle.
gc.set_threshold(100_000, 20, 20)

REPOSITORY = Path(__file__).resolve().parent.parent

# Sharding is tested on fake devices; whatever is not sharded runs on the first of them.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
# Arrays of different rank must be aligned by hand, so that no test passes by a chance broadcast.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Keep what was compiled, small things too, for the next run.
jax.config.update("jax_compilation_cache_dir", str(REPOSITORY / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# The first example of a property compiles, which no deadline allows for.
hypothesis.settings.register_profile("dat_jax", deadline=None, max_examples=25)
hypothesis.settings.load_profile("dat_jax")


@pytest.fixture(scope="module", autouse=True)
def forget_programs() -> Iterator[None]:
    """Lets a module's compiled programs go: a process that kept them all would run out of memory
    maps, of which the system grants it some 65,000."""
    yield
    jax.clear_caches()
    if devices := sys.modules.get("dat_jax.decoding.devices"):
        devices._compile.cache_clear()
