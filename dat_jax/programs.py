# SPDX-License-Identifier: Apache-2.0
"""Compiled programs, kept between runs: what one has compiled the next one reads.

They lie in the user's cache folder, in a cache of JAX's own, to which JAX's own variables apply:
`JAX_ENABLE_COMPILATION_CACHE=false` turns it off, `JAX_COMPILATION_CACHE_DIR` names another folder.
"""

import os
import warnings
from pathlib import Path

import jax

_MOST_BYTES = 2 << 30  # beyond, those that were not used for longest go
_QUICKLY_COMPILED = 0.1  # seconds, within which a program is not worth a file


def keep_programs() -> None:
    """Has JAX keep the programs that this process compiles, unless it was told where or not to.

    It is a convenience: where nothing can be written, programs are compiled as if this were not.
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
    """Removes what a process that was killed had begun to write, by which JAX would stumble: the
    time of use is the last part of it."""
    for program in folder.glob("*-cache"):
        if not program.with_name(program.name.removesuffix("-cache") + "-atime").exists():
            program.unlink(missing_ok=True)
