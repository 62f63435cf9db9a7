# SPDX-License-Identifier: Apache-2.0
"""Depth-Adaptive Transformer (Elbayad, Gu, Grave and Auli, ICLR 2020) in JAX and Flax.

    import dat_jax

    model = dat_jax.load("runs/demo")
    for translation in model.translate(["zwei Uhr"], policy="confidence:0.9", beam_size=4):
        print(translation.text, translation.exits)

Importing the package imports no JAX; loading a model does.
"""

from typing import TYPE_CHECKING, Any

from dat_jax.errors import UserError
from dat_jax.storage.version import __version__

if TYPE_CHECKING:
    from dat_jax.api import TranslationModel, load

__all__ = ["TranslationModel", "UserError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in ("TranslationModel", "load"):
        from dat_jax import api as translation

        return getattr(translation, name)
    raise AttributeError(f"module 'dat_jax' has no attribute {name!r}")
