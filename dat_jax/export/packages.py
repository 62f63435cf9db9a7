# SPDX-License-Identifier: Apache-2.0
"""Packages that only exporting needs, imported when it begins."""

from importlib import import_module
from types import ModuleType

from dat_jax.errors import UserError


def needed(name: str) -> ModuleType:
    """Imports an optional package.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = (error.name or name).partition(".")[0]
        raise UserError(f"{package} is missing: pip install -e '.[export]'") from None
