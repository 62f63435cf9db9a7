# SPDX-License-Identifier: Apache-2.0
"""The training loop: steps, metrics, validation, checkpoints, and resuming."""

import math
import signal
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import optax
from absl import logging
from jax.sharding import Mesh

from dat_jax.checkpoints.best import read_validations
from dat_jax.checkpoints.read import Position, restore, was_stopped
from dat_jax.checkpoints.state import TrainState, place
from dat_jax.checkpoints.write import Checkpoints
from dat_jax.config import Config, TrainingConfig
from dat_jax.data.batching import BatchIterator, shapes_for
from dat_jax.data.dataset import Dataset
from dat_jax.data.shapes import Shape
from dat_jax.errors import Stopped, UserError
from dat_jax.metrics import Mean, add
from dat_jax.model.transformer import Transformer
from dat_jax.runtime.jax_flags import our_modes
from dat_jax.runtime.processes import by_first
from dat_jax.training.divergence import Divergence, Made
from dat_jax.training.files import TrainingFiles
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.profile import Profile
from dat_jax.training.reports import Reports
from dat_jax.training.sharding import data_parallel_mesh, own_rows, share_out_rows
from dat_jax.training.step import abstract_state, make_train_step
from dat_jax.training.stopping import StopRequest
from dat_jax.training.utilization import peak_flops, step_flops
from dat_jax.training.validation import Bleu, Measures, Validation, due, make_losses
from dat_jax.types import Params, PRNGKeyArray

_AHEAD = 2  # steps that may be queued on the device; a request to stop waits for them


class Trained(NamedTuple):
    """The end of a training."""

    step: int  # the last one
    best: str  # the best checkpoint in words; empty if none has been measured


@our_modes()
def train(
    config: Config,
    model: Transformer,
    dataset: Dataset,
    files: TrainingFiles,
    initial_params: Callable[[PRNGKeyArray], Params],
    bleu: Bleu | None = None,
) -> Trained:
    """Trains `model` to step `config.training.steps`, from the newest checkpoint if there is one,
    or until `training.patience` ends; returns the last step and the best checkpoint.

    Otherwise starts from `initial_params` and a new optimizer state. Writes checkpoints and metrics
    to `files`; the last step always has a checkpoint. `bleu` is needed for `training.bleu_every`.

    Raises:
        UserError: more steps than `training.skip_nonfinite` are not finite, no checkpoint can be
            read, or parameters cannot be split among these devices.
        Stopped: a SIGINT or SIGTERM stopped training; the last step is saved.
    """
    training = config.training
    mesh = data_parallel_mesh()
    shapes = _choose_shapes(training, dataset, mesh)
    optimizer = make_optimizer(config)
    train_step = make_train_step(model, optimizer, config, mesh)
    measures = Measures(make_losses(model, config, dataset, shapes, mesh), bleu)
    peak = peak_flops([d.device_kind for d in mesh.devices.flat], config.model.dtype)
    init_key, dropout_key = jax.random.split(jax.random.key(training.seed))
    like = abstract_state(model, optimizer, mesh, training.sharding)
    restored = restore(files.checkpoints, like)
    state, position = restored or (_first_state(initial_params(init_key), optimizer, like), None)
    batches = _resume_batches(dataset, shapes, training.seed, position, mesh)
    step = first_step = int(state.step)
    stopped_at = first_step if position and was_stopped(position) else None
    divergence, unread = Divergence(training.skip_nonfinite, batches), list[Made]()
    with (
        Checkpoints(
            files.checkpoints, training.keep_checkpoints, stopped_at, files.last_saved
        ) as checkpoints,
        Reports(config, files.metrics, files.tensorboard, first_step, peak) as reports,
        Profile(training.profiled_steps, files.profile) as profile,
        StopRequest() as request,
    ):
        recorded = by_first(lambda: read_validations(files.metrics))
        validation = Validation(config, measures, reports, checkpoints, recorded)
        validation.after(first_step, state.params)
        while step < training.steps and not validation.patience_ends:
            step += 1
            batch = share_out_rows(next(batches), mesh)
            with profile.step(step, state):
                state, metrics = train_step(state, batch, dropout_key)
            metrics |= {"flops": Mean(step_flops(model, config, *batches.lengths, step), 1)}
            unread.append(Made(step, *batches.last, metrics))
            reports.progress.advance()
            if len(unread) > _AHEAD:
                jax.block_until_ready(unread[-1 - _AHEAD].metrics)

            asked = request.after(step)
            is_due = due(step, training.checkpoint_every, training.steps)
            save = is_due or bool(asked)
            if save or due(step, training.log_every, training.steps):
                finite = divergence.finite(unread, checkpoints.steps, reports.progress.print)
                unread = []
                if finite:
                    reports.trained(step, batches.passed, reduce(add, finite))
            if save:
                where = {"batches": batches.state} | _plan(dataset, shapes)
                checkpoints.save(state, where, stopped=not is_due)
                reports.progress.skip()
            if asked:  # resuming makes the validation that is due here
                raise _stopped(asked, step)
            validation.after(step, state.params)
        if asked := request.after(training.steps + 1):  # during the last validation
            raise _stopped(asked, step)
        if reason := validation.patience_ends:
            reports.progress.print(f"step {step:,}: training ends, as {reason}: training.patience")
        return Trained(step, validation.best)


def _first_state(
    params: Params, optimizer: optax.GradientTransformation, like: TrainState
) -> TrainState:
    """Returns the state before the first step, placed like `like`."""
    return place(TrainState.create(params, optimizer), like)


def _stopped(asked: signal.Signals, step: int) -> Stopped:
    """Returns the exception for a signal; status 0 for SIGTERM, as an orderly eviction is no
    failure."""
    status = 0 if asked is signal.SIGTERM else 128 + asked
    return Stopped(
        f"stopped by {asked.name} at step {step:,}, which is saved: run the same command again to "
        "resume",
        status,
    )


def _choose_shapes(config: TrainingConfig, dataset: Dataset, mesh: Mesh) -> list[Shape]:
    """Chooses batch shapes whose rows divide evenly among devices and microbatches."""
    row_multiple = math.lcm(8, mesh.size * config.microbatches)
    files = [dataset.tokens("train"), dataset.tokens("valid")]
    return shapes_for(files, config.num_shapes, config.batch_tokens, row_multiple)


def _plan(dataset: Dataset, shapes: Sequence[Shape]) -> dict[str, Any]:
    """Returns the batch shapes and vocabularies that a position in the data is valid for."""
    return {
        "shapes": [list(shape) for shape in shapes],
        "vocabularies": list(dataset.vocabularies.fingerprints),
    }


def _resume_batches(
    dataset: Dataset,
    shapes: Sequence[Shape],
    seed: int,
    position: Position | None,
    mesh: Mesh,
) -> BatchIterator:
    """Resumes the data at `position`, or at the next epoch if batch shapes have changed.

    Reads the rows of each batch that belong to this process's devices in `mesh`.

    Raises:
        UserError: the vocabulary has changed.
    """
    train, own = dataset.tokens("train"), partial(own_rows, mesh=mesh)
    if position is None:
        return BatchIterator(train, shapes, seed, own=own)
    plan, state = _plan(dataset, shapes), position["batches"]
    if plan["vocabularies"] != position["vocabularies"]:
        raise UserError(
            f"{dataset.folder} was prepared again, with another vocabulary than that of the "
            "checkpoints: give another --workdir"
        )
    if plan["shapes"] != position["shapes"]:
        logging.warning("Batch shapes differ on these devices: resuming at the next epoch")
        state = state | {"epoch": state["epoch"] + 1, "next_batch": 0}
    return BatchIterator(train, shapes, seed, state, own)
