# SPDX-License-Identifier: Apache-2.0
"""The training loop: steps, metrics, validation, checkpoints; it goes on where it was stopped."""

import math
from functools import reduce
from pathlib import Path

import jax
import numpy as np

from dat_jax.config import Config
from dat_jax.data.batching import BatchIterator, one_pass, shapes_for
from dat_jax.data.dataset import Dataset
from dat_jax.errors import UserError
from dat_jax.metrics import add, compute
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.training.checkpoint import Checkpoints
from dat_jax.training.optimizer import inverse_sqrt_schedule, make_optimizer
from dat_jax.training.progress import Progress
from dat_jax.training.state import TrainState
from dat_jax.training.step import (
    data_parallel_mesh,
    make_train_step,
    make_validation_step,
    replicated,
    row_sharded,
)
from dat_jax.training.writer import MetricWriter
from dat_jax.types import Params


def train(config: Config, model: Transformer, dataset: Dataset, workdir: Path) -> None:
    """Trains `model` for `config.training.steps` steps, going on from the newest checkpoint if any.

    Leaves checkpoints and metrics in `workdir`; the last step always has a checkpoint.

    Raises:
        UserError: the loss is no longer finite, or no checkpoint can be read.
    """
    training = config.training
    depths = config.model.exit_depths
    files = dataset.splits
    mesh = data_parallel_mesh()
    row_multiple = math.lcm(8, mesh.size * training.accumulation)
    shapes = shapes_for(
        [files["train"], files["valid"]], training.num_shapes, training.batch_tokens, row_multiple
    )
    schedule = inverse_sqrt_schedule(config.optimizer.learning_rate, config.optimizer.warmup_steps)
    optimizer = make_optimizer(config.optimizer)
    train_step = make_train_step(model, optimizer, training, mesh)
    validation_step = make_validation_step(model, training, mesh)
    init_key, dropout_key = jax.random.split(jax.random.key(training.seed))
    state = TrainState.create(init_params(model, init_key), optimizer)
    state = jax.device_put(state, replicated(mesh))

    def validate(params: Params) -> dict[str, float]:
        batches = (jax.device_put(b, row_sharded(mesh)) for b in one_pass(files["valid"], shapes))
        metrics = reduce(add, (validation_step(params, batch) for batch in batches))
        return {f"valid/{name}": value for name, value in compute(metrics, depths).items()}

    with (
        Checkpoints(workdir / "checkpoints", training.keep_checkpoints) as checkpoints,
        MetricWriter(workdir) as writer,
    ):
        state, position = checkpoints.restore(state) or (state, None)
        batches = BatchIterator(files["train"], shapes, training.seed, position)
        first_step = int(state.step)
        with Progress(first_step, training.steps) as progress:
            unread = []
            for step in range(first_step + 1, training.steps + 1):
                batch = jax.device_put(next(batches), row_sharded(mesh))
                state, metrics = train_step(state, batch, dropout_key)
                unread.append(metrics)
                progress.advance()

                log, test, save = (
                    step % every == 0 or step == training.steps
                    for every in (
                        training.log_every,
                        training.validate_every,
                        training.checkpoint_every,
                    )
                )
                if log or save:
                    sums = reduce(add, unread)
                    unread = []
                    values = compute(sums, depths)
                    _check_finite(values["loss"], step, checkpoints.steps)
                    speed = progress.lap(float(np.asarray(sums["loss"].count)))
                    progress.show(step, values["loss"], speed)
                    values |= {"learning_rate": float(np.asarray(schedule(step - 1)))}
                    values |= {"tokens_per_second": speed}
                    writer.write(step, {f"train/{name}": value for name, value in values.items()})
                if test:
                    values = validate(state.params)
                    writer.write(step, values)
                    progress.print(f"step {step:,}: {_describe(values, depths)}")
                if save:
                    checkpoints.save(state, batches.state)
                if test or save:
                    progress.skip()


def _check_finite(loss: float, step: int, saved: list[int]) -> None:
    if not math.isfinite(loss):
        last = f"the last checkpoint is of step {saved[-1]:,}" if saved else "nothing is saved yet"
        raise UserError(
            f"the loss is {loss} at step {step:,}, and {last}: lower optimizer.learning_rate or "
            "raise optimizer.warmup_steps, in another --workdir"
        )


def _describe(values: dict[str, float], depths: tuple[int, ...]) -> str:
    exits = ", ".join(f"{values[f'valid/nll/exit_{depth}']:.3f}" for depth in depths)
    return f"validation loss {values['valid/loss']:.3f}, nll at each exit {exits}"
