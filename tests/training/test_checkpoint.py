# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: what comes back is what went in, and damage does not pass for health."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.errors import UserError
from dat_jax.training.checkpoint import Checkpoints
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.step import TrainState
from tests.tiny import tiny_config


def make_state(step: int) -> TrainState:
    """A small state whose parameters tell the step."""
    params = {"kernel": jnp.full((2, 3), float(step)), "bias": jnp.arange(3.0) + step}
    state = TrainState.create(params, make_optimizer(tiny_config().optimizer))
    return state._replace(step=jnp.asarray(step, jnp.int32))


def save(directory: Path, *steps: int, keep: int | None = None) -> None:
    """Saves states of some steps, in this order."""
    with Checkpoints(directory, keep) as checkpoints:
        for step in steps:
            checkpoints.save(make_state(step), {"seed": 0, "epoch": 1, "next_batch": step})


def restore(directory: Path) -> tuple[TrainState, dict[str, int]] | None:
    with Checkpoints(directory) as checkpoints:
        return checkpoints.restore(make_state(0))


def test_state_and_position_come_back_bit_by_bit(tmp_path: Path):
    save(tmp_path, 3, 7)
    restored = restore(tmp_path)
    assert restored is not None
    state, position = restored
    jax.tree.map(np.testing.assert_array_equal, state, make_state(7))
    assert position == {"seed": 0, "epoch": 1, "next_batch": 7}


def test_there_may_be_nothing_to_restore(tmp_path: Path):
    assert restore(tmp_path / "new") is None


def test_only_the_newest_are_kept(tmp_path: Path):
    save(tmp_path, 1, 2, 3, 4, keep=2)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == [3, 4]


def test_a_relative_directory_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    save(Path("here"), 5)
    assert restore(Path("here")) is not None


def test_the_average_is_that_of_the_last(tmp_path: Path):
    save(tmp_path, 1, 2, 6)
    with Checkpoints(tmp_path) as checkpoints:
        steps, params = checkpoints.average(make_state(0).params, at_most=2)
    assert steps == [6, 2]
    np.testing.assert_allclose(params["kernel"], 4.0)
    np.testing.assert_allclose(params["bias"], np.arange(3) + 4.0)


def test_where_there_are_fewer_all_are_averaged(tmp_path: Path):
    save(tmp_path, 1, 2)
    with Checkpoints(tmp_path) as checkpoints:
        steps, params = checkpoints.average(make_state(0).params, at_most=3)
    assert steps == [2, 1]
    np.testing.assert_allclose(params["kernel"], 1.5)


def test_there_is_no_average_of_nothing(tmp_path: Path):
    with (
        Checkpoints(tmp_path / "new") as checkpoints,
        pytest.raises(UserError, match="holds no checkpoint: train a model first"),
    ):
        checkpoints.average(make_state(0).params, at_most=3)


# Of the files that orbax reads at once it reports one; the others' failures go unheard.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["truncated", "empty", "unfinished"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str):
    save(tmp_path, 3, 7)
    newest = tmp_path / "00000007"
    if damage == "truncated":
        for file in newest.rglob("*"):
            if file.is_file() and "/d/" in str(file):
                file.write_bytes(file.read_bytes()[:3])
    elif damage == "empty":
        shutil.rmtree(newest)
        newest.mkdir()
    else:
        newest.rename(tmp_path / "00000007.orbax-checkpoint-tmp")
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(make_state(0))
        assert restored is not None
        assert int(restored[0].step) == 3
        checkpoints.save(make_state(5), {"seed": 0})
        checkpoints.save(make_state(7), {"seed": 0})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == [3, 5, 7]
        restored = checkpoints.restore(make_state(0))
    assert restored is not None
    jax.tree.map(np.testing.assert_array_equal, restored[0], make_state(7))


def test_what_is_saved_does_not_change_with_the_steps_that_follow(tmp_path: Path):
    """The next step reuses the arrays' memory while the checkpoint is being written."""
    params, moments = ({"kernel": jnp.zeros((2_000, 2_000))} for _ in range(2))
    state = TrainState(jnp.asarray(1, jnp.int32), params, moments)
    train_step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, {})
        for _ in range(20):
            state = train_step(state)
        jax.block_until_ready(state)
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(state)
    assert restored is not None
    assert not np.asarray(restored[0].params["kernel"]).any()


def test_damage_to_all_is_one_clear_line(tmp_path: Path):
    save(tmp_path, 3)
    shutil.rmtree(tmp_path / "00000003" / "params")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read: restore one"):
        restore(tmp_path)
