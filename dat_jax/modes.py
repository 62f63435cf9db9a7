# SPDX-License-Identifier: Apache-2.0
"""JAX's own switches: how ours are set while our programs are traced and run.

Whoever calls us, or the environment, may have set others. In 64-bit mode the dtypes that a loop
carries would grow on their way round.
"""

import contextlib
from collections.abc import Generator

import jax


@contextlib.contextmanager
def our_modes() -> Generator[None]:
    """Sets the switches that our programs are written for; a context or a decorator."""
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.disable_jit(False),
    ):
        yield
