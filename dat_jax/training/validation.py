# SPDX-License-Identifier: Apache-2.0
"""Validation during training: what is measured when, the best checkpoint so far, and patience."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

from jax.sharding import Mesh

from dat_jax.checkpoints.best import Best, Criterion
from dat_jax.checkpoints.write import Checkpoints
from dat_jax.config import Config
from dat_jax.data.batching import one_pass
from dat_jax.data.dataset import Dataset
from dat_jax.data.shapes import Shape
from dat_jax.metrics import add, compute
from dat_jax.model.transformer import Transformer
from dat_jax.training.reports import Reports
from dat_jax.training.sharding import own_rows, share_out_rows, whole
from dat_jax.training.step import make_validation_step
from dat_jax.types import Params

Losses = Callable[[Params], dict[str, float]]
Bleu = Callable[[Params], tuple[dict[str, float], Sequence[str]]]
"""From whole parameters, as NumPy arrays, to BLEU by exit (`bleu/exit_6`) and lines of samples."""


class Measures(NamedTuple):
    """The functions that measure parameters."""

    losses: Losses  # of the whole validation split
    bleu: Bleu | None  # of validation sentences; None if `training.bleu_every` is 0


def due(step: int, every: int, last: int) -> bool:
    """Returns whether something is due after `step`: every that many steps, and after the last."""
    return step % every == 0 or step == last


def make_losses(
    model: Transformer,
    config: Config,
    dataset: Dataset,
    shapes: Sequence[Shape],
    mesh: Mesh,
) -> Losses:
    """Returns the function from parameters to the metrics of the whole validation split."""
    validation_step = make_validation_step(model, config, mesh)
    file = dataset.tokens("valid")

    def validate(params: Params) -> dict[str, float]:
        batches = one_pass(file, shapes, partial(own_rows, mesh=mesh))
        on_devices = (share_out_rows(batch, mesh) for batch in batches)
        metrics = reduce(add, (validation_step(params, batch) for batch in on_devices))
        return compute(metrics, model.config.exit_depths)

    return validate


class Validation:
    """Measures the parameters of a run when it is due, and knows the best checkpoint."""

    def __init__(
        self,
        config: Config,
        measures: Measures,
        reports: Reports,
        checkpoints: Checkpoints,
        recorded: Sequence[dict[str, Any]],
    ) -> None:
        """Continues after the `recorded` validations, lines of `metrics.jsonl` up to the step at
        which training starts."""
        self._training, self._measures = config.training, measures
        self._reports, self._checkpoints = reports, checkpoints
        self._best = Best(Criterion.of(config), recorded)
        kinds = [(line["step"], name.split("/")) for line in recorded for name in line]
        self._recorded = {(step, name[1]) for step, name in kinds if len(name) > 1}
        checkpoints.keep_best(self._best_step)

    def after(self, step: int, params: Params) -> None:
        """Measures what is due after `step`, reports it, and keeps the best checkpoint.

        Leaves out what is recorded: at the step at which training starts all of it, unless the
        run was stopped or killed right after this step was saved.
        """
        training, (losses, bleu) = self._training, self._measures
        if self._is_due(step, training.validate_every, "loss"):
            values = losses(params)
            self._reports.validated(step, values)
            self._add(step, values)
        if bleu and self._is_due(step, training.bleu_every, "bleu"):
            values, samples = bleu(whole(params))
            self._reports.translated(step, values, samples)
            self._add(step, values)

    def _add(self, step: int, values: dict[str, float]) -> None:
        self._best.add(step, values)
        self._checkpoints.keep_best(self._best_step)

    def _is_due(self, step: int, every: int, kind: str) -> bool:
        is_new = (step, kind) not in self._recorded
        return is_new and step > 0 and due(step, every, self._training.steps)

    @property
    def _best_step(self) -> int | None:
        return self._best.step(self._checkpoints.lasting)

    @property
    def best(self) -> str:
        """The best checkpoint in words; empty if none of them has been measured."""
        step = self._best_step
        return self._best.describe(step) if step else ""

    @property
    def patience_ends(self) -> str:
        """The reason why training ends after this step, in words; empty if it goes on."""
        best, patience = self._best, self._training.patience
        if not 0 < patience <= best.waited:
            return ""
        return (
            f"{best.criterion.metric} has not improved in {best.waited} measurements since step "
            f"{best.step():,}"
        )
