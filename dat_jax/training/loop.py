# SPDX-License-Identifier: Apache-2.0
"""The training loop: steps, metrics, validation, checkpoints, and resuming."""

import math
import signal
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax
import optax
from absl import logging
from jax.sharding import Mesh

from dat_jax.checkpoints.read import Position, restore, was_stopped
from dat_jax.checkpoints.state import TrainState, place
from dat_jax.checkpoints.write import Checkpoints
from dat_jax.config import Config, TrainingConfig
from dat_jax.data.batching import BatchIterator, one_pass, shapes_for
from dat_jax.data.dataset import Dataset
from dat_jax.data.shapes import Shape
from dat_jax.errors import Stopped, UserError
from dat_jax.metrics import Mean, add, compute
from dat_jax.model.transformer import Transformer
from dat_jax.runtime.jax_flags import our_modes
from dat_jax.training.divergence import Divergence, Made
from dat_jax.training.files import TrainingFiles
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.profile import Profile
from dat_jax.training.reports import Reports
from dat_jax.training.sharding import data_parallel_mesh, own_rows, share_out_rows
from dat_jax.training.step import (
    abstract_state,
    make_train_step,
    make_validation_step,
)
from dat_jax.training.stopping import StopRequest
from dat_jax.training.utilization import peak_flops, step_flops
from dat_jax.types import Params, PRNGKeyArray

_AHEAD = 2  # steps that may be queued on the device; a request to stop waits for them


@our_modes()
def train(
    config: Config,
    model: Transformer,
    dataset: Dataset,
    files: TrainingFiles,
    initial_params: Callable[[PRNGKeyArray], Params],
) -> None:
    """Trains `model` to step `config.training.steps`, from the newest checkpoint if there is one.

    Otherwise starts from `initial_params` and a new optimizer state. Writes checkpoints and metrics
    to `files`; the last step always has a checkpoint.

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
    validate = _make_validation(model, config, dataset, shapes, mesh)
    peak = peak_flops([d.device_kind for d in mesh.devices.flat], config.model.dtype)
    init_key, dropout_key = jax.random.split(jax.random.key(training.seed))
    like = abstract_state(model, optimizer, mesh, training.sharding)
    restored = restore(files.checkpoints, like)
    state, position = restored or (_first_state(initial_params(init_key), optimizer, like), None)
    batches = _resume_batches(dataset, shapes, training.seed, position, mesh)
    first_step = int(state.step)
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
        for step in range(first_step + 1, training.steps + 1):
            batch = share_out_rows(next(batches), mesh)
            with profile.step(step, state):
                state, metrics = train_step(state, batch, dropout_key)
            metrics |= {"flops": Mean(step_flops(model, config, *batches.lengths, step), 1)}
            unread.append(Made(step, *batches.last, metrics))
            reports.progress.advance()
            if len(unread) > _AHEAD:
                jax.block_until_ready(unread[-1 - _AHEAD].metrics)

            asked = request.after(step)
            due = _due(step, training.checkpoint_every, training.steps)
            save = due or bool(asked)
            if save or _due(step, training.log_every, training.steps):
                finite = divergence.finite(unread, checkpoints.steps, reports.progress.print)
                unread = []
                if finite:
                    reports.trained(step, reduce(add, finite))
            if save:
                where = {"batches": batches.state} | _plan(dataset, shapes)
                checkpoints.save(state, where, stopped=not due)
                reports.progress.skip()
            if _due(step, training.validate_every, training.steps):
                reports.validated(step, validate(state.params))
            if asked:
                raise _stopped(asked, step)
        if asked := request.after(training.steps + 1):  # during the last validation
            raise _stopped(asked, training.steps)


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


def _due(step: int, every: int, last: int) -> bool:
    return step % every == 0 or step == last


def _choose_shapes(config: TrainingConfig, dataset: Dataset, mesh: Mesh) -> list[Shape]:
    """Chooses batch shapes whose rows divide evenly among devices and microbatches."""
    row_multiple = math.lcm(8, mesh.size * config.microbatches)
    files = [dataset.tokens("train"), dataset.tokens("valid")]
    return shapes_for(files, config.num_shapes, config.batch_tokens, row_multiple)


def _make_validation(
    model: Transformer,
    config: Config,
    dataset: Dataset,
    shapes: Sequence[Shape],
    mesh: Mesh,
) -> Callable[[Params], dict[str, float]]:
    """Returns the function from parameters to the metrics of the whole validation split."""
    validation_step = make_validation_step(model, config, mesh)
    file = dataset.tokens("valid")

    def validate(params: Params) -> dict[str, float]:
        batches = one_pass(file, shapes, partial(own_rows, mesh=mesh))
        on_devices = (share_out_rows(batch, mesh) for batch in batches)
        metrics = reduce(add, (validation_step(params, batch) for batch in on_devices))
        return compute(metrics, model.config.exit_depths)

    return validate


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
