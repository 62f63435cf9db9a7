# SPDX-License-Identifier: Apache-2.0
"""Settings for all tests: eight CPU devices, strict broadcasting, a compilation cache."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import pytest

from tests import programs

# Tests spend most of their time compiling tiny programs: skip LLVM's optimisations, and MLIR for
# fusions, which would triple the time to compile a training step.
_FLAGS = " ".join(
    [
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_parallel_codegen_split_count=1",  # threads for tiny programs cost time
        "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters",  # ignored by JAX 0.12
    ]
)
if _FLAGS not in os.environ.get(
    "XLA_FLAGS", ""
):  # workers inherit them; twice would change cache keys
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}".strip()

# Tracing creates millions of objects, and hardly any are part of a cycle.
gc.set_threshold(100_000, 20, 20)

REPOSITORY = Path(__file__).resolve().parent.parent

# Sharding is tested on fake devices; everything else runs on the first one.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
# Arrays of different rank must be aligned by hand, so that no accidental broadcast goes unnoticed.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Cache all compiled programs, even small ones, for the next run.
jax.config.update("jax_compilation_cache_dir", str(REPOSITORY / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# The first example of a property compiles, which takes longer than any deadline.
hypothesis.settings.register_profile("dat_jax", deadline=None, max_examples=25)
hypothesis.settings.load_profile("dat_jax")


@pytest.fixture(scope="session", autouse=True)
def _shared_training_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        programs.share_training_steps(patch)
        yield


@pytest.fixture(scope="module", autouse=True)
def _forget_programs() -> None:
    programs.forget_if_many()
