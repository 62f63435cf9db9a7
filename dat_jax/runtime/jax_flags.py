# SPDX-License-Identifier: Apache-2.0
"""JAX flags, fixed while our programs are traced and run.

The caller or the environment may have set others. In 64-bit mode the dtypes of loop carries would
change; the caller's mesh would conflict with ours; another generator would draw other numbers.
"""

import contextlib
from collections.abc import Generator

import jax
from jax.extend import backend

from dat_jax.errors import UserError


@contextlib.contextmanager
def our_modes() -> Generator[None]:
    """Sets the flags that our programs need; a context manager or a decorator.

    Raises:
        UserError: JAX_PLATFORMS names a platform that this machine lacks.
    """
    _check_platform()
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.disable_jit(False),
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.default_prng_impl("threefry2x32"),
        jax.threefry_partitionable(True),
        jax.transfer_guard("allow"),
        jax.set_mesh(None),
    ):
        yield


def _check_platform() -> None:
    asked = jax.config.values["jax_platforms"]
    try:
        jax.devices()
    except (RuntimeError, AssertionError):
        if not asked:
            raise
        raise UserError(
            f"JAX_PLATFORMS is {asked!r}, which cannot be used here: set it to "
            f"{' or '.join(_platforms())}, or unset it"
        ) from None


def _platforms() -> list[str]:
    """Returns the platforms of this machine, and resets JAX's backends afterwards."""
    asked = jax.config.values["jax_platforms"]
    jax.config.update("jax_platforms", None)
    try:
        return list(backend.backends())
    finally:
        backend.clear_backends()
        jax.config.update("jax_platforms", asked)
