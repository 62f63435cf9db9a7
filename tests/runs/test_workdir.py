# SPDX-License-Identifier: Apache-2.0
"""Workdirs: warm starts, what may change in a run, missing files, and where checkpoints are."""

import dataclasses
import os
import re
import shutil
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from dat_jax.checkpoints.state import TrainState
from dat_jax.checkpoints.write import Checkpoints
from dat_jax.config import Config, Schedule
from dat_jax.data.sources.generated import GeneratedCorpus
from dat_jax.data.vocabulary import Vocabularies, train_vocabulary
from dat_jax.errors import UserError
from dat_jax.runs.compatibility import check_continues, check_whole
from dat_jax.runs.warm_start import check_initial, initial_params
from dat_jax.runs.workdir import Run, make_model
from dat_jax.training.optimizer import make_optimizer
from dat_jax.types import Params
from tests.tiny import random_params, tiny_config


def config_with(head: str, initial: Path | None = None, **model: Any) -> Config:
    """Encoder and decoder have one width, so that both multinomial heads have the same shapes."""
    return tiny_config(
        data={"source": "generated:60", "vocabulary_size": 100, "max_length": 40},
        model={"exit_head": head, "encoder_dim": 8, "encoder_heads": 2} | model,
        training={"initial_workdir": str(initial or "")},
    )


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Vocabularies, Params]:
    """A workdir with a checkpoint of random parameters and a sequence multinomial head."""
    return trained(tmp_path_factory.mktemp("first"), config_with("sequence_multinomial"))


def trained(path: Path, config: Config) -> tuple[Run, Vocabularies, Params]:
    """A workdir with a checkpoint of random parameters."""
    run = Run(path)
    vocabularies = run.prepare(config).vocabularies
    params = random_params(make_model(config, vocabularies))
    state = TrainState.create(params, make_optimizer(config))
    config.save(run.config_file)
    with Checkpoints(run.checkpoints, last_saved=run.training_files.last_saved) as checkpoints:
        checkpoints.save(state, {"vocabularies": list(vocabularies.fingerprints)})
    return run, vocabularies, params


@pytest.mark.parametrize("head", ["none", "sequence_multinomial", "token_multinomial"])
def test_a_warm_start_copies_the_model_and_a_head_of_the_same_kind(first, head: str):
    run, vocabularies, other = first
    config = config_with(head, run.path)
    model = make_model(config, vocabularies)
    params = initial_params(config, model, vocabularies, jax.random.key(0))
    same_head = head == "sequence_multinomial"
    assert ("exit_head" in params) == (head != "none")
    for name in params:
        for mine, theirs in zip(
            jax.tree.leaves(params[name]), jax.tree.leaves(other[name]), strict=True
        ):
            equal = np.array_equal(mine, theirs)
            assert equal == (name != "exit_head" or same_head)


@pytest.mark.parametrize("theirs", [0, 5])
def test_a_halting_unit_is_taken_over_by_one_of_the_same_width(theirs: int, tmp_path: Path):
    head = "token_geometric"
    run, vocabularies, other = trained(tmp_path / "run", config_with(head, halting_hidden=theirs))
    for mine in (0, 5, 6):
        config = config_with(head, run.path, halting_hidden=mine)
        check_initial(Run(tmp_path / "new"), config)
        model = make_model(config, vocabularies)
        params = initial_params(config, model, vocabularies, jax.random.key(0))
        shapes = jax.tree.map(np.shape, params)
        assert shapes == jax.tree.map(np.shape, random_params(model))
        np.testing.assert_array_equal(params["classifiers"]["table"], other["classifiers"]["table"])
        same = np.array_equal(params["exit_head"]["kernel"], other["exit_head"]["kernel"])
        assert same == (mine == theirs)


def test_a_replaced_vocabulary_is_noticed(first, tmp_path: Path):
    run, _, _ = first
    copy = Run(tmp_path / "copy")
    shutil.copytree(run.path, copy.path)
    assert copy.load().steps == (0,)
    english = [pair[1] for pair in GeneratedCorpus(60, seed=1).pairs("train")]
    other = train_vocabulary(english, 100, "bpe")
    (copy.vocabulary / "joint.model").write_bytes(other)
    with pytest.raises(
        UserError, match="is not the vocabulary that the model was trained with: restore it"
    ):
        copy.load()


def test_paths_of_a_run_are_stored_and_compared_as_absolute_paths(
    first, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copy = Run(Path(shutil.copytree(first[0].path, tmp_path / "copy")))
    (tmp_path / "link").symlink_to(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    started = config_with("none", Path("run"))
    data = dataclasses.replace(started.data, source="text:a/../text/")
    copy.keep(dataclasses.replace(started, data=data))
    assert copy.config.data.source == f"text:{tmp_path / 'text'}"
    copy.keep(started)
    monkeypatch.chdir("/")
    for initial in (f"{tmp_path}/run", f"{tmp_path}/a/../run/", f"{tmp_path}/link"):
        check_continues(copy, config_with("none", Path(initial)))
    message = rf"initial_workdir = '{tmp_path}/run', not 'run': give the former path, which is no"
    with pytest.raises(UserError, match=message):
        check_continues(copy, started)
    with pytest.raises(UserError, match=f"= '{tmp_path}/run', not '': give another --workdir"):
        check_continues(copy, config_with("none"))


GONE = ["removed", "emptied", "dangling", "config.json", "data"]


@pytest.mark.parametrize("shows", ["checkpoints.json", "evaluation.jsonl", "tuned", "decode"])
@pytest.mark.parametrize("gone", GONE)
def test_a_run_with_missing_files_is_recognised_by_any_of_its_outputs(
    first, tmp_path: Path, gone: str, shows: str
):
    run = Run(Path(shutil.copytree(first[0].path, tmp_path / "run")))
    (run.path / "checkpoints.json").rename(run.path / shows)
    check_continues(run, run.config)
    config, missing = run.config, f"a checkpoint in {run.checkpoints} is missing"
    if gone in ("removed", "emptied", "dangling"):
        shutil.move(run.path / "checkpoints", tmp_path / "moved")
    if gone == "emptied":
        (run.path / "checkpoints").mkdir()
    elif gone == "dangling":
        (run.path / "checkpoints").symlink_to(tmp_path / "no" / "disk")
        missing = f"checkpoints is a link to {tmp_path}/no/disk, which is missing: create or mount"
    elif gone == "config.json":
        run.config_file.unlink()
        missing = "config.json is missing: restore it, give another --workdir"
    elif gone == "data":
        shutil.rmtree(run.data)
        missing = "data is missing: restore it, give another --workdir, or, to start from"
    other = dataclasses.replace(config, model=config_with("none").model)
    for asked in (config, other):
        with pytest.raises(UserError, match=re.escape(missing)):
            check_continues(run, asked)


def test_a_run_killed_before_its_first_checkpoint_may_change(first, tmp_path: Path):
    run = Run(tmp_path)
    run.checkpoints.mkdir(exist_ok=True)
    first[0].config.save(run.config_file)
    (tmp_path / "metrics.jsonl").write_text('{"step": 50, "train/loss": 1.0}\n')
    check_continues(run, config_with("none"))
    # Also if the first checkpoint is complete but not yet renamed.
    (tmp_path / "checkpoints.json").touch()
    (run.checkpoints / "00000050.orbax-checkpoint-tmp").mkdir()
    check_continues(run, config_with("none"))
    assert not check_whole(run)


def test_a_resumed_run_may_change_how_it_saves_memory(first):
    run, _, _ = first
    config = run.config
    training = dataclasses.replace(config.training, sharding="fsdp")
    model = dataclasses.replace(config.model, rematerialisation="blocks")
    check_continues(run, dataclasses.replace(config, training=training, model=model))


def test_bleu_of_other_sentences_is_not_compared(first, tmp_path: Path):
    run = Run(Path(shutil.copytree(first[0].path, tmp_path / "copy")))
    measured = dataclasses.replace(run.config.training, bleu_every=5, bleu_sentences=9)
    config = dataclasses.replace(run.config, training=measured)
    check_continues(run, config)
    config.save(run.config_file)
    check_continues(run, config)
    other = dataclasses.replace(measured, bleu_sentences=8)
    with pytest.raises(UserError, match=r"training\.bleu_sentences = 9, not 8"):
        check_continues(run, dataclasses.replace(config, training=other))


def with_schedule(config: Config, schedule: str, steps: int) -> Config:
    return dataclasses.replace(
        config,
        optimizer=dataclasses.replace(config.optimizer, schedule=schedule, warmup_steps=10),
        training=dataclasses.replace(config.training, steps=steps),
    )


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_a_run_may_change_its_length_only_if_the_schedule_allows(
    first, tmp_path: Path, schedule: str
):
    run = Run(Path(shutil.copytree(first[0].path, tmp_path / "copy")))
    started = with_schedule(run.config, schedule, 100)
    started.save(run.config_file)
    check_continues(run, started)
    for steps in (50, 200):
        config = with_schedule(started, schedule, steps)
        if schedule in ("inverse_sqrt", "constant"):
            check_continues(run, config)
        else:
            message = f"rate falls to 0 after training.steps = 100, not {steps}: give another"
            with pytest.raises(UserError, match=message):
                check_continues(run, config)
    for other in {*get_args(Schedule)} - {schedule}:
        message = f"holds a run with optimizer.schedule = '{schedule}', not '{other}'"
        with pytest.raises(UserError, match=message):
            check_continues(run, with_schedule(started, other, 100))


def with_checkpoints_in(run: Run, folder: str) -> Config:
    training = dataclasses.replace(run.config.training, checkpoint_folder=folder)
    return dataclasses.replace(run.config, training=training)


@pytest.fixture
def elsewhere(first, tmp_path: Path) -> tuple[Run, Path]:
    """A copy of the first run whose checkpoints are in another folder."""
    run, folder = Run(tmp_path / "run"), tmp_path / "checkpoints"
    shutil.copytree(first[0].path, run.path)
    shutil.move(run.path / "checkpoints", folder)
    with_checkpoints_in(run, str(folder)).save(run.config_file)
    return run, folder


def test_a_run_finds_its_checkpoints_in_another_folder(elsewhere: tuple[Run, Path], tmp_path: Path):
    run, folder = elsewhere
    assert run.saved_steps == [0]
    assert run.load().steps == (0,)
    for name in (folder, f"{folder}/", f"{tmp_path}/a/../checkpoints"):
        check_continues(run, with_checkpoints_in(run, str(name)))
    for name in ("", f"{tmp_path}/others"):
        with pytest.raises(UserError, match=r"holds a run with training\.checkpoint_folder = "):
            check_continues(run, with_checkpoints_in(run, name))


def test_a_run_never_uses_the_checkpoints_of_another(elsewhere: tuple[Run, Path], tmp_path: Path):
    """Whether it is new or has a checkpoint folder of its own."""
    run, folder = elsewhere
    other = Run(tmp_path / "other")
    config = with_checkpoints_in(run, str(folder))
    with pytest.raises(UserError, match=r"give another training\.checkpoint_folder, or, if you"):
        check_continues(other, config)
    shutil.copytree(run.data, other.data)
    with_checkpoints_in(run, "").save(other.config_file)
    with pytest.raises(
        UserError, match=rf"{folder} holds checkpoints and is not the checkpoint folder of .*other"
    ):
        check_continues(other, config)
    config.save(other.config_file)  # as the message advises for moved checkpoints
    check_continues(other, config)


def test_the_checkpoint_folder_may_start_with_a_tilde(
    elsewhere: tuple[Run, Path], monkeypatch: pytest.MonkeyPatch
):
    run, folder = elsewhere
    monkeypatch.setenv("HOME", str(folder.parent))
    with_checkpoints_in(run, "~/checkpoints").save(run.config_file)
    assert run.load().steps == (0,)
    check_continues(run, with_checkpoints_in(run, str(folder)))


def test_an_unreadable_checkpoint_folder_name_is_refused(elsewhere, tmp_path: Path):
    run, _ = elsewhere
    message = r"could not be read back: give a training\.checkpoint_folder whose path"
    with pytest.raises(UserError, match=message):
        check_continues(run, with_checkpoints_in(run, f"{tmp_path}/run [1]"))


UNREADABLE = ["run [1]", "run]", "run*", "run?", "run\\1", os.fsdecode(b"r\xffn")]


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_workdir_name_is_refused(tmp_path: Path, name: str):
    run = Run(tmp_path / name / "below")
    with pytest.raises(UserError, match="could not be read back: give a --workdir"), run.writing():
        pass
    with pytest.raises(UserError, match="could not be read back: give a --workdir"):
        run.load()
    assert list(tmp_path.iterdir()) == []


def test_the_error_for_a_name_that_the_locale_cannot_read_suggests_utf8(tmp_path: Path):
    """With LC_ALL=C and PYTHONUTF8=0 Python reads the name byte by byte."""
    run = Run(tmp_path / "r\udcc3\udcbcn")
    for attempt in (run.load, run.writing().__enter__):
        with pytest.raises(UserError, match=r"--workdir: the locale reads .* set PYTHONUTF8=1"):
            attempt()


def test_a_workdir_with_any_other_name_loads(first, tmp_path: Path):
    """These characters are fine, so no more names need to be refused."""
    run, _, _ = first
    copy = tmp_path / "run é {1} ~#%$&!'\";:,=+@^`|<>()- .." / "\n\t\xa0"
    copy.parent.mkdir()
    with Run(copy).writing():
        pass
    assert Run(Path(shutil.copytree(run.path, copy))).load().steps == (0,)


def test_a_model_loads_even_if_its_checkpoint_is_deleted_right_after(
    first, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, _, params = first
    copy = Run(tmp_path / "copy")
    shutil.copytree(run.path, copy.path)
    restore = ocp.Checkpointer.restore

    def restore_and_delete(self, folder, *args, **kwargs):
        items = restore(self, folder, *args, **kwargs)
        shutil.rmtree(folder)
        return items

    monkeypatch.setattr(ocp.Checkpointer, "restore", restore_and_delete)
    jax.tree.map(np.testing.assert_array_equal, copy.load().params, params)
    assert not list(copy.checkpoints.iterdir())
