# SPDX-License-Identifier: Apache-2.0
"""JAX's own switches: ours are set while our programs are traced and run.

Whoever calls us, or the environment, may have set others. In 64-bit mode the dtypes that a loop
carries would grow on their way round; with a mesh of the caller's, ours would be refused; with
another generator, other numbers would be drawn.
"""

import contextlib
from collections.abc import Generator

import jax
from jax.extend import backend

from dat_jax.errors import UserError


@contextlib.contextmanager
def our_modes() -> Generator[None]:
    """Sets the switches that our programs are written for; a context or a decorator.

    Raises:
        UserError: JAX was told to run on a platform that is not here.
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
    """The platforms that are here; JAX starts again afterwards with those that it was told."""
    asked = jax.config.values["jax_platforms"]
    jax.config.update("jax_platforms", None)
    try:
        return list(backend.backends())
    finally:
        backend.clear_backends()
        jax.config.update("jax_platforms", asked)
