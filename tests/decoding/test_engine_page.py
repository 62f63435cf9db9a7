# SPDX-License-Identifier: Apache-2.0
"""The engine runs the example of `docs/engine.md` as the page says."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dat_jax.data.vocabulary import EOS
from dat_jax.decoding import engine
from dat_jax.decoding.unstacked import unstack
from dat_jax.exits.questions import Plan, Rule, Token
from tests.decoding.lively import make_queue, settings
from tests.tiny import SOURCE_VOCABULARY, random_params, tiny_model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "engine.md"
STEPS, SLOTS = 4, 6


@dataclasses.dataclass(frozen=True)
class Scripted(Rule):
    """Each token exits at the depth given by a table of sentences and positions."""

    exits: Any

    kind = "scripted"

    def before_token(self, token: Token, plan: Plan) -> Plan:
        depths = jnp.asarray(self.exits, jnp.int32)[token.number, token.position]
        return plan._replace(exit_at=depths[:, None])


def table(name: str) -> list[list[str]]:
    """The cells of a table of the page, without the header."""
    (text,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- end -->", PAGE.read_text(), re.DOTALL)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()[2:]]


def sentences() -> list[list[int]]:
    """The exits of each sentence's tokens: first of sentences in work, by slot, then of waiting."""
    first, later = [], []
    for _, _, *cells in table("exits"):
        tokens = re.findall(r"\d\.?", " ".join(cells))
        end = next(number for number, token in enumerate(tokens, start=1) if token.endswith("."))
        for found, part in ((first, tokens[:end]), (later, tokens[end:])):
            if part:
                found.append([int(token[0]) for token in part])
    return first + later


def test_four_steps_match_the_page():
    exits = sentences()
    lengths = np.array([len(each) for each in exits], np.int32)
    script = np.zeros((20, STEPS), np.int32)
    for number, each in enumerate(exits):
        script[number, : len(each)] = each
    source = np.random.default_rng(0).integers(EOS + 1, SOURCE_VOCABULARY, (len(exits), 5))
    source[:, -1] = EOS
    queue = make_queue(source.astype(np.int32), lengths, np.arange(len(exits), dtype=np.int32))
    how = dataclasses.replace(
        settings(1, SLOTS, refill=2, sizes=(2, 3)), length=STEPS, windows=(2, STEPS), projected=3
    )
    model = tiny_model()
    hypotheses, work = jax.tree.map(
        np.asarray,
        engine.search(model, unstack(model, random_params(model)), Scripted(script), queue, how),
    )
    assert hypotheses.lengths[: len(exits)].tolist() == lengths.tolist()
    assert [row[row > 0].tolist() for row in hypotheses.exits[: len(exits)]] == exits
    counts = [[int(cell) for cell in row[-3:]] for row in table("counts")]
    assert np.stack(work, axis=1).tolist() == counts


def test_the_totals_of_the_page_match_its_steps():
    for _, *steps, runs, needed, computed in table("counts"):
        pairs = [tuple(map(int, cell.split(" of "))) for cell in steps if cell != "0"]
        assert [len(pairs), *map(sum, zip(*pairs, strict=True))] == [
            int(runs),
            int(needed),
            int(computed),
        ]
