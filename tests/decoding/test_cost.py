# SPDX-License-Identifier: Apache-2.0
"""Costs of searches that run one after the other, or at the same time."""

import json

import numpy as np

from dat_jax.decoding.cost import DecodeCost, total
from dat_jax.decoding.work import Work


def cost(number: int) -> DecodeCost:
    work = Work(*(np.full(3, number * 10**place) for place in range(3)))
    return DecodeCost(work, 7 * number, 30 - number, 100 * number, 0.5 * number, 0.25 * number)


def plain(found: DecodeCost) -> dict:
    return {**vars(found), "work": [counts.tolist() for counts in found.work]}


def test_sequential_searches_add_up_work_and_time():
    expected = {"busiest": 21, "in_work": 29, "peak_bytes": 200, "seconds": 1.5}
    expected |= {"seconds_compiling": 0.75, "work": [[3] * 3, [30] * 3, [300] * 3]}
    assert plain(cost(1) + cost(2)) == plain(total(2, [cost(1), cost(2)])) == expected


def test_no_searches_cost_nothing():
    expected = dict.fromkeys(vars(cost(0)), 0) | {"work": [[0] * 3] * 3}
    assert plain(total(2, [])) == expected


def test_simultaneous_searches_add_up_sentences_but_not_time():
    expected = {"busiest": 14, "in_work": 57, "peak_bytes": 200, "seconds": 1.0}
    expected |= {"seconds_compiling": 0.5, "work": [[3] * 3, [30] * 3, [300] * 3]}
    assert plain(cost(1).alongside(cost(2))) == expected


def test_a_cost_survives_json():
    written = json.dumps((cost(2) + cost(3)).to_json())
    assert plain(DecodeCost.from_json(json.loads(written))) == plain(cost(2) + cost(3))
