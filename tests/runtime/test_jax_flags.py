# SPDX-License-Identifier: Apache-2.0
"""Decoding and training give the same results whatever JAX flags the user has set."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

import train
from dat_jax import TranslationModel
from dat_jax.data.vocabulary import EOS
from dat_jax.decoding.trained import TrainedModel, rows_on
from dat_jax.runs.workdir import Run
from dat_jax.runtime.jax_flags import our_modes
from tests import programs
from tests.scripts.calls import (
    PLAIN,
    REPOSITORY,
    TINY,
    Finished,
    check_refusal,
    environment,
    succeed,
)
from tests.tiny import random_params, tiny_config, tiny_model


@contextlib.contextmanager
def user_flags() -> Iterator[None]:
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("strict"),
        jax.disable_jit(),
        jax.debug_infs(True),
        jax.default_prng_impl("rbg"),
        jax.threefry_partitionable(False),
        jax.transfer_guard("disallow"),
        jax.set_mesh(jax.make_mesh((8,), ("x",))),
    ):
        yield


@pytest.mark.parametrize(
    "others",
    [
        lambda: jax.set_mesh(jax.make_mesh((8,), ("x",))),
        lambda: jax.set_mesh(jax.make_mesh((4,), ("x",), (AxisType.Auto,))),
        lambda: jax.transfer_guard("disallow_explicit"),
        lambda: jax.debug_infs(True),
        lambda: jax.debug_nans(True),
        lambda: jax.default_prng_impl("rbg"),
        lambda: jax.threefry_partitionable(False),
    ],
)
def test_user_flags_do_not_affect_our_programs(others: Callable[[], Any]):
    """The program uses our mesh, a transfer, random numbers and a division by 0."""

    @our_modes()
    def ours() -> list[list[float]]:
        kept = jax.device_put(np.zeros(8, np.float32), rows_on(jax.devices()))
        drawn = jax.random.uniform(jax.random.key(1), (8,))
        return [drawn.tolist(), (drawn / kept * kept).tolist()]

    expected, before = ours(), jax.sharding.get_abstract_mesh()
    with others():
        within = jax.sharding.get_abstract_mesh()
        assert np.array_equal(ours(), expected, equal_nan=True)
        assert jax.sharding.get_abstract_mesh() == within
    assert jax.sharding.get_abstract_mesh() == before


def test_an_unavailable_platform_is_refused_each_time(tmp_path: Path):
    """JAX must not fall back to another platform on the second attempt."""
    program = f"""
import dat_jax, train
from dat_jax.runtime.jax_flags import our_modes
for _ in range(2):
    try:
        our_modes().__enter__()
    except dat_jax.UserError as error:
        print(error)
arguments = [*{[*TINY, PLAIN]!r}, "--workdir={tmp_path / "run"}"]
raise SystemExit(train.main(["train.py", *arguments]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=environment() | {"JAX_PLATFORMS": "nope"},
        capture_output=True,
        text=True,
    )
    message = "JAX_PLATFORMS is 'nope', which cannot be used here: set it to cpu"
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert all(line.startswith(message) for line in lines)
    check_refusal(Finished(done.returncode, "", done.stderr), message)
    assert not list(tmp_path.iterdir())


def test_user_flags_do_not_change_a_search():
    model = tiny_model(exit_head="token_geometric")
    config = tiny_config(model={"exit_head": "token_geometric"}, decoding={"beam_size": 2})
    translations = TranslationModel(TrainedModel(config, model, random_params(model)))
    ids, policies = [[5, 9, 7, EOS], [4, EOS]], ("token_geometric:0.4", "uniform")
    expected = [translations.search(ids, policy=policy) for policy in policies]
    programs.forget()
    with user_flags():
        found = [translations.search(ids, policy=policy) for policy in policies]
    assert [one.hypotheses for one in found] == [one.hypotheses for one in expected]


@pytest.mark.slow
def test_user_flags_do_not_change_training(tmp_path: Path):
    arguments = [*TINY, PLAIN, "--config.training.steps=1"]
    succeed(train.main, *arguments, f"--workdir={tmp_path / 'plain'}")
    programs.forget()
    with user_flags():
        succeed(train.main, *arguments, f"--workdir={tmp_path / 'odd'}")
    plain = Run(tmp_path / "plain").load().params
    with user_flags():
        odd = Run(tmp_path / "odd").load().params
    jax.tree.map(np.testing.assert_array_equal, odd, plain)
