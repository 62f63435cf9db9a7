# SPDX-License-Identifier: Apache-2.0
"""The checkpoint that a user asks for: best, last, or a step."""

from collections.abc import Sequence
from typing import Any

from dat_jax.checkpoints.best import Best
from dat_jax.errors import UserError

LAST = "last"
_BEST = "best"


def check_choice(checkpoint: Any, average_checkpoints: int | None) -> None:
    """Checks that a checkpoint is asked for by name or step, and no mean of several as well.

    Raises:
        UserError: it is not so.
    """
    if average_checkpoints is not None:
        raise UserError(
            f"checkpoint is {checkpoint} and average_checkpoints is {average_checkpoints}: leave "
            "one of them out"
        )
    if checkpoint not in (_BEST, LAST) and not str(checkpoint).isdecimal():
        raise UserError(f"checkpoint is {checkpoint}: must be best, last or a step, such as 1000")


def choose_step(checkpoint: Any, saved: Sequence[int], best: Best, folder: object) -> int:
    """Returns the step of a checkpoint that is asked for, among those that are `saved`.

    Raises:
        UserError: it is not there; the message names those that are.
    """
    if not saved:
        raise UserError(f"{folder} holds no checkpoint: train a model into it first")
    if checkpoint == LAST:
        return saved[-1]
    best_step = best.step(saved)
    step = best_step if checkpoint == _BEST else int(checkpoint)
    if step is not None and step in saved:
        return step
    steps = ", ".join(f"{step} (best)" if step == best_step else str(step) for step in saved)
    missing = f", none with a {best.criterion.metric}" if checkpoint == _BEST else ""
    raise UserError(
        f"checkpoint is {checkpoint}, and {folder} holds those of step {steps}{missing}: give one "
        "of these steps, or last"
    )
