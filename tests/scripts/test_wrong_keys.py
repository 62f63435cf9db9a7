# SPDX-License-Identifier: Apache-2.0
"""More than a hundred wrong command lines, generated from the keys of configs/base.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import train
from configs import base
from tests.scripts.calls import TINY, refuse

FREE = {
    *("data.source_language", "data.target_language", "training.initial_workdir"),
    "model.halting_bias",
}
"""Keys that accept any text or any finite number."""


def keys() -> Iterator[tuple[str, Any]]:
    for section, values in base.get_config().to_dict().items():
        for key, value in values.items():
            yield f"{section}.{key}", value


def wrong_values(key: str, value: Any) -> Iterator[str]:
    """Values of the wrong type, and values out of range."""
    if isinstance(value, tuple):
        yield from ("3", "(0, 99)")
    elif isinstance(value, str):
        yield from () if key in FREE else ("no such thing",)
    else:
        yield from ("many", "inf", "nan")
        yield from () if key in FREE else ("-1",)


WRONG = [(key, value) for key, default in keys() for value in wrong_values(key, default)]


def test_there_are_at_least_a_hundred():
    assert len(WRONG) >= 100


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_the_error_for_a_wrong_value_names_its_key(key: str, value: str, tmp_path: Path):
    run = tmp_path / "run"
    refuse(key, train.main, *TINY, f"--workdir={run}", f"--config.{key}={value}")
    assert not run.exists()


@pytest.mark.parametrize("key", [key for key, _ in keys()])
def test_the_error_for_an_unknown_key_suggests_the_right_one(key: str, tmp_path: Path):
    run = tmp_path / "run"
    refuse(
        f"key {key}_: did you mean {key}?",
        train.main,
        *TINY,
        f"--workdir={run}",
        f"--config.{key}_=1",
    )
    assert not run.exists()
