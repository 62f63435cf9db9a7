# SPDX-License-Identifier: Apache-2.0
"""The best checkpoint equals a plain scan of the recorded validations, and is kept and read."""

import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dat_jax.checkpoints.best import Best, Criterion, read_validations
from dat_jax.checkpoints.folders import saved_steps
from dat_jax.checkpoints.read import average, read_step
from dat_jax.checkpoints.write import Checkpoints
from dat_jax.errors import UserError
from tests.checkpoints.test_read import LIKE, make_state, stop
from tests.tiny import tiny_config

VALUES = st.sampled_from([1.0, 2.0, 2.5, math.nan, math.inf])  # few, so that many are equal


@given(st.lists(VALUES, max_size=8), st.sampled_from([1, -1]), st.sets(st.integers(0, 7)))
def test_the_best_is_that_of_a_plain_scan(values: list[float], sign: int, saved: set[int]):
    best = Best(Criterion("valid/x", sign), [{"step": 0, "valid/y": 9.0}])
    kept, top, since = None, None, 0
    for step, value in enumerate(values):
        best.add(step, {"x": value, "y": -value})
        if not math.isfinite(value):
            continue
        if top is None or sign * value > sign * values[top]:
            top, since = step, 0
        else:
            since += 1
        if step in saved and (kept is None or sign * value > sign * values[kept]):
            kept = step
    assert best.step(saved) == kept
    assert (best.step(), best.waited) == (top, since)


def test_the_criterion_is_a_metric_of_validation():
    def metric(**training: object) -> Criterion:
        config = tiny_config(training=training, model={"exit_head": "token_geometric"})
        return Criterion.of(config)

    assert metric() == ("valid/loss", -1)
    assert metric(best_by="exit_loss") == ("valid/exit_loss", -1)
    by_bleu = {"best_by": "bleu", "bleu_every": 2_000}
    assert metric(**by_bleu) == ("valid/bleu/exit_3", 1)
    assert metric(**by_bleu, bleu_exits=(2, 1)) == ("valid/bleu/exit_2", 1)


def test_validations_are_read_from_a_file_that_is_being_written(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    assert read_validations(path) == []
    lines = [{"step": 1, "train/loss": 2.0}, {"step": 2, "valid/loss": 3.0, "train/loss": 1.0}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "val')
    assert read_validations(path) == [{"step": 2, "valid/loss": 3.0}]


def save(directory: Path, keep: int, *saves: tuple[int, int | None]) -> None:
    """Saves steps in order; after each, a step is known to be the best."""
    with Checkpoints(directory, keep) as checkpoints:
        for step, best in saves:
            checkpoints.save(make_state(step), {})
            checkpoints.keep_best(best)


def test_the_best_is_kept_next_to_the_newest_until_there_is_a_better_one(tmp_path: Path):
    save(tmp_path, 2, (1, 1), (2, 2), (3, 2), (4, 2), (5, 2))
    assert saved_steps(tmp_path) == [2, 4, 5]
    with Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.keep_best(2)
        checkpoints.save(make_state(6), {})
        checkpoints.keep_best(6)
        checkpoints.save(make_state(7), {})
    assert saved_steps(tmp_path) == [6, 7]


@pytest.mark.parametrize("damaged", [False, True])
def test_averages_are_the_same_whether_a_best_is_kept_or_not(tmp_path: Path, damaged: bool):
    """Also if the newest checkpoint cannot be read, and after a stop."""
    steps = (1, 2, 3, 4, 5)
    save(tmp_path / "with", 2, *((step, 1) for step in steps))
    save(tmp_path / "without", 2, *((step, None) for step in steps))
    assert [saved_steps(tmp_path / name) for name in ("with", "without")] == [[1, 4, 5], [4, 5]]
    for folder in (tmp_path / "with", tmp_path / "without"):
        if damaged:
            (folder / "00000005" / "manifest.json").write_text("{}")
    for at_most in (1, 2, 3):
        ours, theirs = (
            average(tmp_path / name, LIKE.params, at_most) for name in ("with", "without")
        )
        assert ours.steps == theirs.steps
        jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    if not damaged:
        with Checkpoints(tmp_path / "with", 2) as checkpoints:
            checkpoints.keep_best(1)
            checkpoints.save(make_state(6), {}, stopped=True)
        assert saved_steps(tmp_path / "with") == [1, 5, 6]
        assert average(tmp_path / "with", LIKE.params, 3).steps == [6, 5]


def test_a_best_that_a_stop_saved_off_schedule_is_dropped(tmp_path: Path):
    stop(tmp_path, 3)
    with Checkpoints(tmp_path, 1, stopped_at=3) as checkpoints:
        assert (checkpoints.steps, checkpoints.lasting) == ([3], [])
        checkpoints.save(make_state(4), {})
        assert checkpoints.lasting == [4]
    assert saved_steps(tmp_path) == [4]


def test_one_step_is_read_as_it_was_saved(tmp_path: Path):
    save(tmp_path, 3, (3, None), (7, None))
    found = read_step(tmp_path, LIKE.params, 3)
    assert found.steps == [3]
    jax.tree.map(np.testing.assert_array_equal, found.params, make_state(3).params)
    with pytest.raises(UserError, match=r"00000005 cannot be read, .*: choose another"):
        read_step(tmp_path, LIKE.params, 5)
    (tmp_path / "00000003" / "manifest.json").unlink()
    with pytest.raises(UserError, match="00000003 cannot be read, its manifest is missing"):
        read_step(tmp_path, LIKE.params, 3)
