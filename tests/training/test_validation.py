# SPDX-License-Identifier: Apache-2.0
"""The best checkpoint and patience, in one run and in a run that is stopped or killed and resumed.

Losses of validation are replaced by chosen ones, looked up by the true ones, which are those of an
uninterrupted run to the bit.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from dat_jax.checkpoints.best import read_validations
from dat_jax.checkpoints.folders import saved_steps
from dat_jax.checkpoints.read import read_step
from dat_jax.data.dataset import Dataset
from dat_jax.errors import Stopped
from dat_jax.model.transformer import init_params
from dat_jax.runs.workdir import Run, make_model
from dat_jax.training import loop
from dat_jax.training.loop import Trained
from dat_jax.training.validation import Validation, make_losses
from dat_jax.types import Params
from tests.training.test_loop import CONFIG, Asked, run, with_training

CHOSEN = {2: 3.0, 4: 1.0, 6: 2.0, 8: 1.0, 10: 0.5, 12: 0.7, 14: 0.9}
EVERY_2 = {"checkpoint_every": 2, "validate_every": 2, "keep_checkpoints": 1}
CONFIG_2 = with_training(CONFIG, steps=14, patience=2, **EVERY_2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Run(tmp_path_factory.mktemp("data")).prepare(CONFIG)


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run with its true losses, all checkpoints kept."""
    workdir = tmp_path_factory.mktemp("whole")
    run(with_training(CONFIG_2, patience=0, keep_checkpoints=9), dataset, workdir)
    return workdir


@pytest.fixture(scope="module")
def true_losses(whole: Path) -> dict[float, int]:
    """The steps of the whole run by their validation losses."""
    return {line["valid/loss"]: line["step"] for line in read_validations(metrics(whole))}


@pytest.fixture(autouse=True)
def _chosen_losses(true_losses: dict[float, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(*arguments: Any) -> Callable[[Params], dict[str, float]]:
        losses = make_losses(*arguments)

        def measure(params: Params) -> dict[str, float]:
            values = losses(params)
            return values | {"loss": CHOSEN[true_losses[values["loss"]]]}

        return measure

    monkeypatch.setattr(loop, "make_losses", chosen)


def recorded(workdir: Path) -> dict[int, float]:
    """The validation losses of a run; each step is recorded once."""
    lines = [(line["step"], line["valid/loss"]) for line in read_validations(metrics(workdir))]
    assert len(dict(lines)) == len(lines)
    return dict(lines)


def metrics(workdir: Path) -> Path:
    return workdir / "metrics.jsonl"


def params_at_8(dataset: Dataset, workdir: Path) -> Params:
    like = init_params(make_model(CONFIG, dataset.vocabularies), jax.random.key(0))
    return read_step(workdir / "checkpoints", like, 8).params


@pytest.fixture
def ended(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run that patience has ended at step 8, where the loss equals that of step 4."""
    workdir = tmp_path / "ended"
    assert run(CONFIG_2, dataset, workdir) == Trained(8, "step 4, valid/loss 1")
    assert saved_steps(workdir / "checkpoints") == [4, 8]
    assert recorded(workdir) == {step: CHOSEN[step] for step in (2, 4, 6, 8)}
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "ends" in line]
    assert line == (
        "step 8: training ends, as valid/loss has not improved in 2 measurements since step 4: "
        "training.patience"
    )
    return workdir


def killed(step: int) -> Callable[..., None]:
    """Validation in a process that is killed after it has saved `step`."""
    after = Validation.after

    def dies(self: Validation, now: int, params: Params) -> None:
        if now == step:
            raise RuntimeError("killed")
        after(self, now, params)

    return dies


@pytest.mark.parametrize(
    ("end", "step"),
    [("stopped", 3), ("stopped", 4), ("stopped", 8), ("killed", 4), ("killed", 8)],
)
def test_a_resumed_run_has_the_same_best_and_the_same_patience(
    dataset: Dataset,
    tmp_path: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
    step: int,
):
    workdir = tmp_path / "resumed"
    with monkeypatch.context() as patch:
        if end == "stopped":
            patch.setattr(loop, "StopRequest", lambda: Asked(step))
        else:
            patch.setattr(Validation, "after", killed(step))
        with pytest.raises(Stopped if end == "stopped" else RuntimeError):
            run(CONFIG_2, dataset, workdir)
    assert run(CONFIG_2, dataset, workdir) == Trained(8, "step 4, valid/loss 1")
    assert saved_steps(workdir / "checkpoints") == [4, 8]
    assert recorded(workdir) == {step: CHOSEN[step] for step in (2, 4, 6, 8)}
    ours, theirs = (params_at_8(dataset, folder) for folder in (workdir, whole))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_run_that_patience_has_ended_goes_on_with_more_of_it(dataset: Dataset, ended: Path):
    before = metrics(ended).read_text()
    assert run(CONFIG_2, dataset, ended) == Trained(8, "step 4, valid/loss 1")
    assert metrics(ended).read_text() == before
    more = with_training(CONFIG_2, patience=3)
    assert run(more, dataset, ended) == Trained(14, "step 10, valid/loss 0.5")
    assert saved_steps(ended / "checkpoints") == [10, 14]
    assert recorded(ended) == CHOSEN


def test_a_run_of_an_older_version_has_the_best_of_what_it_kept(dataset: Dataset, ended: Path):
    shutil.rmtree(ended / "checkpoints" / "00000004")
    longer = with_training(CONFIG_2, patience=0, steps=10)
    assert run(longer, dataset, ended) == Trained(10, "step 10, valid/loss 0.5")
    assert saved_steps(ended / "checkpoints") == [8, 10]  # 8 was the best when 10 was saved


def test_only_steps_that_are_saved_on_schedule_are_compared(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A stop saves step 4, the best of all, but checkpoints are due every 3 steps."""
    config = with_training(CONFIG_2, steps=8, patience=0, checkpoint_every=3)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", lambda: Asked(4))
        with pytest.raises(Stopped):
            run(config, dataset, tmp_path)
    assert run(config, dataset, tmp_path).best == "step 8, valid/loss 1"
    assert recorded(tmp_path) == {step: CHOSEN[step] for step in (2, 4, 6, 8)}
    assert saved_steps(tmp_path / "checkpoints") == [6, 8]  # 6 was the best when 8 was saved
