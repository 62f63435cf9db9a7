# SPDX-License-Identifier: Apache-2.0
"""The cache of compiled programs, which saves later runs from compiling them again.

It is JAX's persistent compilation cache, in the user's cache folder. Set
`JAX_ENABLE_COMPILATION_CACHE=false` to turn it off, or `JAX_COMPILATION_CACHE_DIR` to move it.
"""

import os
import warnings
from pathlib import Path

import jax

_MOST_BYTES = 2 << 30  # above this, JAX removes the least recently used programs
_QUICKLY_COMPILED = 0.1  # seconds; faster programs are not worth a file


def keep_programs() -> None:
    """Turns on JAX's compilation cache, unless the user has set its folder or turned it off.

    Does nothing where the cache folder cannot be written.
    """
    told = jax.config.values
    if told["jax_compilation_cache_dir"] or not told["jax_enable_compilation_cache"]:
        return
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_cut_short(folder)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", _MOST_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _QUICKLY_COMPILED)
        warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def _folder() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path(os.path.expanduser("~/.cache"))) / "dat_jax"


def _remove_cut_short(folder: Path) -> None:
    """Removes partial entries of killed processes, which make JAX fail: JAX writes an entry's
    access time last."""
    for program in folder.glob("*-cache"):
        if not program.with_name(program.name.removesuffix("-cache") + "-atime").exists():
            program.unlink(missing_ok=True)
