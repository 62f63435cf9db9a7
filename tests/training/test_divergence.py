# SPDX-License-Identifier: Apache-2.0
"""The message for a step that is not finite."""

from typing import Any

import numpy as np
import pytest

from dat_jax.data.batching import BatchIterator
from dat_jax.errors import UserError
from dat_jax.metrics import Mean
from dat_jax.training.divergence import Divergence, Made


class Batches(BatchIterator):
    """Stands in for the batches of a training run."""

    def __init__(self) -> None:
        pass

    def pairs_of(self, epoch: int, batch: int) -> Any:
        return np.asarray([7 + epoch, batch])


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_the_message_names_the_value_and_its_batch(name: str):
    finite = {"loss": Mean(2.0, 4.0), "gradient_norm": Mean(0.5, 1.0)}
    made = [Made(3, 0, 1, finite), Made(4, 0, 2, finite | {name: Mean(np.inf, 1.0)})]
    messages = list[str]()
    divergence = Divergence(1, Batches())
    assert divergence.finite(made, [], messages.append) == [finite]
    message = f"the {name} is inf at step 4, of epoch 0, batch 2 (training pairs 2, 7, from 0)"
    assert messages == [f"{message}: skipped, 1 of at most 1"]
    with pytest.raises(UserError) as refused:
        divergence.finite(made, [2], messages.append)
    assert str(refused.value).startswith(f"{message}, and the last checkpoint is of step 2: lower")
