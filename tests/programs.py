# SPDX-License-Identifier: Apache-2.0
"""Programs that outlive a test: tracing and compiling one takes longer than tests run it."""

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

_MOST_MAPS = 8_000  # between two modules; a compiled search has some 700, and 70 MB
_OF_THE_LOOP = {
    **dict.fromkeys(("profile", "checkpoint_folder", "initial_workdir"), ""),
    **dict.fromkeys(("log_every", "validate_every", "checkpoint_every"), 1),
    **dict.fromkeys(("seed", "patience", "bleu_every", "bleu_sentences"), 0),
    "best_by": "loss",
    "bleu_exits": (),
}
"""Keys of section `training` that are no part of a training step."""

_MADE = {
    "dat_jax.training.loop": ("make_optimizer", "abstract_state", "make_train_step"),
    "dat_jax.training.validation": ("make_validation_step",),
}
"""What a training run makes of its config, by the module that makes it."""

_SHARED: list[Any] = []  # cached functions


def forget_if_many() -> None:
    """Drops all programs once they take much memory, which their memory maps tell."""
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > _MOST_MAPS:
        forget()


def forget() -> None:
    """Drops all programs."""
    jax.clear_caches()
    for shared in _SHARED:
        shared.cache_clear()
    if devices := sys.modules.get("dat_jax.decoding.devices"):
        devices._compile.cache_clear()


def share_training_steps(patch: pytest.MonkeyPatch) -> None:
    """Makes the training runs of this process that have the same step trace it once."""
    for where, names in _MADE.items():
        if module := sys.modules.get(where):  # jaxtyping must be there before any import
            for name in names:
                patch.setattr(module, name, _shared(getattr(module, name), module.Config))


def _shared(make: Callable[..., Any], config: type) -> Callable[..., Any]:
    once = functools.lru_cache(maxsize=8)(make)
    _SHARED.append(once)
    return lambda *given: once(*(_of_step(x) if isinstance(x, config) else x for x in given))


def _of_step(config: Any) -> Any:
    endless = {"steps": 1 << 20} if config.optimizer.schedule == "inverse_sqrt" else {}
    training = dataclasses.replace(config.training, **_OF_THE_LOOP, **endless)
    return dataclasses.replace(config, training=training)
