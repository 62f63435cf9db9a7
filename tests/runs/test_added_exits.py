# SPDX-License-Identifier: Apache-2.0
"""Exits and heads added to a trained model: the last exit's logits do not change."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.config import Config
from dat_jax.errors import UserError
from dat_jax.model.classifiers import classify, weights_of_exit
from dat_jax.runs.warm_start import check_initial, initial_params
from dat_jax.runs.workdir import Run, make_model
from tests.runs.test_workdir import trained
from tests.tiny import random_tokens, tiny_config

SIZE = 60


def config_of(initial: Path | None = None, **model: Any) -> Config:
    return tiny_config(
        data={"source": "generated:60", "vocabulary_size": SIZE, "max_length": 40},
        model=model,
        training={"initial_workdir": str(initial or "")},
    )


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("last", "shared"), ("all", "per_exit")),
        (("last", "shared"), ("all", "shared")),
        (("last", "per_exit"), ("all", "per_exit")),
        (("last", "per_exit"), ("all", "shared")),
        (("all", "shared"), ("all", "per_exit")),
    ],
)
def test_added_exits_start_with_the_classifier_of_the_last(
    tmp_path: Path, norm: str, before: tuple[str, str], after: tuple[str, str]
):
    first = {"norm": norm, "exits": before[0], "classifiers": before[1]}
    run, vocabularies, theirs = trained(tmp_path / "first", config_of(**first))
    second = first | {"exits": after[0], "classifiers": after[1], "exit_head": "token_geometric"}
    config = config_of(run.path, **second)
    check_initial(Run(tmp_path / "second"), config)
    model, other = make_model(config, vocabularies), make_model(run.config, vocabularies)
    params = initial_params(config, model, vocabularies, jax.random.key(0))

    source, inputs = (random_tokens(seed, 2, 5, SIZE) for seed in (1, 2))
    arguments = (source, jnp.ones(source.shape, bool), inputs)
    mine = model.apply({"params": params}, *arguments)
    expected = other.apply({"params": theirs}, *arguments)
    assert len(mine) == 3
    np.testing.assert_array_equal(mine[-1], expected[-1])
    assert (mine[0] != mine[1]).any()
    if before[0] == "last":
        memory = other.apply({"params": theirs}, *arguments[:2], method="encode")
        states: Any = other.apply({"params": theirs}, inputs, memory, arguments[1], method="states")
        weights: Any = other.apply({"params": theirs}, method="classifier_weights")
        only = weights_of_exit(weights, 0)
        for depth in range(3):
            np.testing.assert_array_equal(mine[depth], classify(only, states[depth]))
    else:
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({}, {"exits": "last"}, r"its model\.exits is 'all', not 'last': set both alike"),
        ({"classifiers": "per_exit"}, {}, r"its model\.classifiers is 'per_exit', not 'shared'"),
        ({"exits": "last"}, {"norm": "pre"}, r"its model\.norm is 'post', not 'pre'"),
    ],
)
def test_exits_are_added_and_nothing_else_changes(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], message: str
):
    run, _, _ = trained(tmp_path / "first", config_of(**before))
    with pytest.raises(UserError, match=message):
        check_initial(Run(tmp_path / "second"), config_of(run.path, **after))
