# SPDX-License-Identifier: Apache-2.0
"""A model that is cut at an exit decodes as the whole one does with that exit."""

import dataclasses

import jax
import pytest

from dat_jax.api import TranslationModel
from dat_jax.config import Config
from dat_jax.errors import UserError
from dat_jax.export.cut import up_to
from tests.export.models import KINDS, LIMIT, make, sources


def assert_cut_is_exact(kind: str, *exits: str) -> None:
    """Asserts that a cut at exit 2 decodes as the whole model with these exits, each in its way."""
    whole = make(kind)
    cut = TranslationModel(up_to(whole.trained, 2))
    assert whole.trained.vocabularies is not None
    ids = whole.trained.vocabularies.source.encode(sources(whole)[:20])
    how = {"limits": [LIMIT] * len(ids), "beam_size": 1}
    found = [cut.search(ids, policy=policy, **how).hypotheses for policy in exits]
    assert found == [whole.search(ids, policy=policy, **how).hypotheses for policy in exits]
    assert len(set(found)) == len(exits)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "last"])
def test_the_last_exit_of_a_cut_is_that_exit_of_the_whole(kind: str):
    assert_cut_is_exact(kind, "fixed:2")


@pytest.mark.parametrize("kind", ["pre, target", "pre, per exit, widths differ"])
def test_the_lower_exits_of_a_cut_are_those_of_the_whole(kind: str):
    assert_cut_is_exact(kind, "fixed:1", "fixed:2")


def test_a_cut_is_a_model_without_a_head_and_with_a_valid_config():
    trained = up_to(make("post, per exit").trained, 2)
    assert trained.config.model.exit_head == "none"
    assert trained.model.config == trained.config.model
    assert Config.from_dict(dataclasses.asdict(trained.config)) == trained.config
    assert "exit_head" not in trained.params
    depths = {leaf.shape[0] for leaf in jax.tree.leaves(trained.params["decoder"])}
    assert depths == {2}


def test_the_whole_model_is_kept_as_it_is():
    for kind in ("post, per exit", "last"):
        trained = make(kind).trained
        assert up_to(trained, None) is up_to(trained, 3) is trained


@pytest.mark.parametrize(
    ("kind", "depth", "message"),
    [
        ("post, tied", 4, "--depth=4: the model has no exit there: give one of 1, 2, 3"),
        ("post, tied", 0, "--depth=0: the model has no exit there"),
        ("last", 2, "--depth=2: the model has no exit there: give one of 3"),
    ],
)
def test_a_depth_without_an_exit_is_refused(kind: str, depth: int, message: str):
    with pytest.raises(UserError) as caught:
        up_to(make(kind).trained, depth)
    assert str(caught.value).startswith(message)
