# SPDX-License-Identifier: Apache-2.0
"""Suites: the paper's tables and figures, and what is measured beside them, as lists of points.

A point is a training and the policies that decode with it. The most telling ones come first.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks._trainings import Training

TUNED = "tuned"  # of a policy: "tuned:confidence" is all thresholds that are tuned for that kind


class Point(NamedTuple):
    """A training, the policies to decode with, and the splits to decode."""

    training: Training
    policies: Sequence[str]
    splits: Sequence[str] = ("valid", "test")


class Setting(NamedTuple):
    """The models that a suite is made for."""

    layers: int  # of the models' decoders
    second_phase: Callable[[], dict[str, Any]]  # what it changes, "section.key" to a value

    @property
    def exits(self) -> dict[str, Any]:
        """The changes of the second phase.

        Raises:
            UserError: it has no config.
        """
        return self.second_phase()

    @property
    def fixed(self) -> tuple[str, ...]:
        """The policies of all fixed exits, the first and the last, which span them, first."""
        depths = dict.fromkeys([1, self.layers, *range(2, self.layers)])
        return tuple(f"fixed:{depth}" for depth in depths)


Suite = Callable[[Setting], list[Point]]

_ALIGNED = Training("aligned", {})


def _baseline(layers: int) -> Point:
    """The model of the paper's baseline with so many decoder blocks, and one exit."""
    changes = {"model.decoder_layers": layers, "model.exits": "last"}
    return Point(Training(f"baseline_{layers}", changes), (f"fixed:{layers}",))


def _all_exits(setting: Setting, training: Training) -> Point:
    """A training, decoded at each exit and at exits drawn by chance."""
    return Point(training, (*setting.fixed, "uniform:0"))


def _changed(setting: Setting, name: str, changes: dict[str, Any]) -> Point:
    """An aligned training with some keys changed, decoded at each exit and by chance."""
    return _all_exits(setting, Training(name, changes))


def _mixed(setting: Setting, samples: int) -> Point:
    changes = {"training.mode": "mixed", "training.exit_samples": samples}
    return _changed(setting, f"mixed_{samples}", changes)


def _table1(setting: Setting) -> list[Point]:
    """Table 1: baselines of 1 to N blocks, aligned training, mixed training."""
    last = setting.layers
    depths = [depth for depth in (3, *range(4, last)) if depth < last]
    return [
        _all_exits(setting, _ALIGNED),
        _baseline(last),
        _mixed(setting, 1),
        *(_baseline(depth) for depth in (1, 2) if depth < last),
        *(_baseline(depth) for depth in depths[:1]),
        *(_mixed(setting, samples) for samples in (6, 3)),
        *(_baseline(depth) for depth in depths[1:]),
    ]


def _table2(setting: Setting) -> list[Point]:
    """Table 2: the weights of the exits' losses."""
    kinds = {"n": "n", "1/n": "1_over_n", "1/sqrt_n": "1_over_sqrt_n", "sqrt_n": "sqrt_n"}
    weighted = [
        _changed(setting, f"weights_{name}", {"training.loss_weights": kind})
        for kind, name in kinds.items()
    ]
    return [_all_exits(setting, _ALIGNED), *weighted]


def _table3(setting: Setting) -> list[Point]:
    """Table 3: gradient scaling."""
    scaled = [
        _changed(setting, f"gradient_scaling_{gamma}", {"training.gradient_scaling": gamma})
        for gamma in (0.5, 0.3, 1.1, 0.7, 0.9)
    ]
    return [_all_exits(setting, _ALIGNED), *scaled]


def _head(setting: Setting, kind: str, oracle: str, penalty: float, smoothing: float) -> Training:
    """The second phase: an exit head on top of aligned training."""
    changes = setting.exits | {
        "model.exit_head": kind,
        "exit.oracle": oracle,
        "exit.exit_penalty": penalty,
        "exit.oracle_smoothing": smoothing,
    }
    name = f"{kind}_{oracle}_lambda_{penalty}"
    return Training(f"{name}_sigma_{smoothing}" if smoothing else name, changes, _ALIGNED)


def _chosen(setting: Setting) -> Training:
    """The second phase as its config has it."""
    return Training("exits", {"exit.oracle_smoothing": 0.0} | setting.exits, _ALIGNED)


def _exits(setting: Setting) -> list[Point]:
    """Section 4.2: the head that was chosen, then each kind of exit with each oracle."""
    chosen, every = _chosen(setting), (*setting.fixed, "uniform:0")
    grids = {"likelihood": (0.05, 0.02, 0.2), "correctness": (0.1, 0.05, 0.3)}
    points = [Point(chosen, (*every, "tuned:token_geometric", "tuned:confidence"))]
    points.append(Point(_ALIGNED, (*every, "tuned:confidence")))
    ends = setting.fixed[:2]
    for number in range(3):
        for smoothing in (0.0, 2.0):
            for kind in ("token_geometric", "token_multinomial"):
                for oracle, penalties in grids.items():
                    own = "tuned:token_geometric" if kind == "token_geometric" else kind
                    head = _head(setting, kind, oracle, penalties[number], smoothing)
                    points.append(Point(head, (*ends, own)))
        for oracle in grids:
            penalty = (0.02, 0.0, 0.1)[number]
            head = _head(setting, "sequence_multinomial", oracle, penalty, 0.0)
            points.append(Point(head, (*ends, "sequence_multinomial")))
    again = [x for x in points[1:] if x.training.changes == chosen.changes]
    return [point for point in points if point not in again]


def _heads(setting: Setting) -> list[Point]:
    """Heads alone, on the frozen aligned model: oracles, and halting units with a hidden layer."""
    points = [Point(_ALIGNED, (*setting.fixed, "tuned:confidence"))]
    for hidden in (0, 64):
        for oracle, penalty in {"likelihood": 0.05, "agreement": 0.0}.items():
            changes = _head(setting, "token_geometric", oracle, penalty, 0.0).changes
            changes |= {"exit.trains": "head_alone", "model.halting_hidden": hidden}
            alone = Training(f"head_alone_{oracle}_hidden_{hidden}", changes, _ALIGNED)
            points.append(Point(alone, (*setting.fixed[:2], "tuned:token_geometric")))
    return points


def _ablation(setting: Setting) -> list[Point]:
    """Figure 5: average exits under several lambda and sigma, at a threshold of 0.5, on `valid`."""
    return [
        Point(
            _head(setting, "token_geometric", "likelihood", penalty, smoothing),
            (*setting.fixed[:2], "token_geometric:0.5"),
            ("valid",),
        )
        for smoothing in (0.0, 2.0, 8.0)
        for penalty in (0.05, 0.2, 0.0, 0.1)
    ]


def _lifts(setting: Setting) -> list[Point]:
    """Trainings that may lift low exits, beside aligned training as the paper has it."""
    changes = {
        "from_above_0.5": {"training.gradient_from_above": 0.5},
        "layer_drop_0.1": {"model.layer_drop": 0.1},
        "layer_drop_rising_0.2": {"model.layer_drop": 0.2, "model.layer_drop_rates": "rising"},
        "from_above_0": {"training.gradient_from_above": 0.0},
    }
    return [_all_exits(setting, _ALIGNED)] + [
        _changed(setting, name, changed) for name, changed in changes.items()
    ]


def _time(setting: Setting) -> list[Point]:
    """Quality against time: the chosen head's tuned exits, its cuts, and shallow baselines."""
    tuned = ("tuned:token_geometric", "tuned:confidence")
    baselines = [_baseline(depth) for depth in range(1, setting.layers + 1)]
    every = [Point(_chosen(setting), (*setting.fixed, *tuned)), *baselines]
    return [point._replace(splits=("test",)) for point in every]


_SMALL = {
    "data.vocabulary_size": 60,
    "model.encoder_layers": 1,
    **{f"model.{side}_dim": 16 for side in ("encoder", "decoder")},
    **{f"model.{side}_ff_dim": 16 for side in ("encoder", "decoder")},
    **{f"model.{side}_heads": 2 for side in ("encoder", "decoder")},
    "optimizer.warmup_steps": 2,
    "training.steps": 6,
    "training.batch_tokens": 1_024,
    "training.num_shapes": 1,
    "training.checkpoint_every": 3,
    "training.validate_every": 6,
    "decoding.average_checkpoints": 1,
    "decoding.beam_size": 1,
    "decoding.max_length_extra": 4,
}


def _smoke(setting: Setting) -> list[Point]:
    """A little of everything, of sizes that learn nothing: to see that all works."""
    aligned = Training("aligned", _SMALL)
    layers = {"model.decoder_layers": 2, "model.exits": "last"}
    exits = Training("exits", setting.exits | _SMALL, aligned)
    return [
        Point(exits, (*setting.fixed[:2], "tuned:token_geometric"), ("test",)),
        Point(Training("baseline_2", _SMALL | layers), ("fixed:2",), ("test",)),
        Point(aligned, (*setting.fixed[:2], "uniform:0"), ("valid",)),
    ]


SUITES: dict[str, Suite] = {
    "smoke": _smoke,
    "table1": _table1,
    "table2": _table2,
    "table3": _table3,
    "exits": _exits,
    "heads": _heads,
    "ablation": _ablation,
    "lifts": _lifts,
    "time": _time,
}
