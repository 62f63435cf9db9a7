# SPDX-License-Identifier: Apache-2.0
"""Suites: the paper's tables and figures, and our own comparisons, as lists of points.

A point is a training and the policies that decode with it. The most informative points come first.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.reproduce.trainings import Training
from dat_jax.config import DecodingConfig
from dat_jax.exits.thresholds import Similarity
from dat_jax.tuning.fronts import KINDS

TUNED = "tuned"  # the policy "tuned:confidence" means all tuned thresholds of that rule


class RuleSettings(NamedTuple):
    """Settings of decoding, for the rules that can use them."""

    shortlist: int = 0
    trailing_gap: float = 0.0

    def of(self, decoding: DecodingConfig) -> DecodingConfig:
        """Returns the settings of decoding with these."""
        return dataclasses.replace(decoding, **self._asdict())


class Point(NamedTuple):
    """A training, the policies to decode with, and the splits to decode."""

    training: Training
    policies: Sequence[str]
    splits: Sequence[str] = ("valid", "test")
    settings: RuleSettings = RuleSettings()


class Setting(NamedTuple):
    """The models of a suite."""

    layers: int  # decoder blocks, N
    second_phase: Callable[[], dict[str, Any]]
    """Returns its changes, "section.key" to a value, or raises `UserError` without a config."""

    @property
    def ends(self) -> tuple[str, ...]:
        """The policies of the first and the last exit."""
        return tuple(f"fixed:{depth}" for depth in dict.fromkeys((1, self.layers)))

    @property
    def fixed(self) -> tuple[str, ...]:
        """The policies of all fixed exits, `ends` first."""
        return (*self.ends, *(f"fixed:{depth}" for depth in range(2, self.layers)))


Suite = Callable[[Setting], list[Point]]

_ALIGNED = Training("aligned", {})
_FROM_ABOVE = Training("from_above_0.5", {"training.gradient_from_above": 0.5})
_TUNED_RULES = (f"{TUNED}:token_geometric", f"{TUNED}:confidence")
_FAST = RuleSettings(shortlist=16, trailing_gap=1.0)


def _baseline(layers: int) -> Point:
    """Returns the paper's baseline: a model of this many decoder blocks and one exit."""
    changes = {"model.decoder_layers": layers, "model.exits": "last"}
    return Point(Training(f"baseline_{layers}", changes), (f"fixed:{layers}",))


def _all_exits(
    setting: Setting, name: str = "aligned", changes: dict[str, Any] | None = None
) -> Point:
    """Returns aligned training with some changes, decoded at each exit and at random exits."""
    return Point(Training(name, changes or {}), (*setting.fixed, "uniform:0"))


def _mixed(setting: Setting, samples: int) -> Point:
    changes = {"training.mode": "mixed", "training.exit_samples": samples}
    return _all_exits(setting, f"mixed_{samples}", changes)


def _table1(setting: Setting) -> list[Point]:
    """Table 1: baselines of 1 to N blocks, aligned training, mixed training."""
    first, *others = (_baseline(n) for n in [setting.layers, *range(1, setting.layers)])
    mixed_1, mixed_6, mixed_3 = (_mixed(setting, samples) for samples in (1, 6, 3))
    return [_all_exits(setting), first, mixed_1, *others[:3], mixed_6, mixed_3, *others[3:]]


def _table2(setting: Setting) -> list[Point]:
    """Table 2: the weights of the exits' losses."""
    kinds = {"n": "n", "1/n": "1_over_n", "1/sqrt_n": "1_over_sqrt_n", "sqrt_n": "sqrt_n"}
    return [_all_exits(setting)] + [
        _all_exits(setting, f"weights_{name}", {"training.loss_weights": kind})
        for kind, name in kinds.items()
    ]


def _table3(setting: Setting) -> list[Point]:
    """Table 3: gradient scaling."""
    return [_all_exits(setting)] + [
        _all_exits(setting, f"gradient_scaling_{gamma}", {"training.gradient_scaling": gamma})
        for gamma in (0.5, 0.3, 1.1, 0.7, 0.9)
    ]


def _head(setting: Setting, kind: str, oracle: str, penalty: float, smoothing: float) -> Training:
    """Returns the second phase: an exit head on top of aligned training."""
    changes = setting.second_phase() | {
        "model.exit_head": kind,
        "exit.oracle": oracle,
        "exit.exit_penalty": penalty,
        "exit.oracle_smoothing": smoothing,
    }
    name = f"{kind}_{oracle}_lambda_{penalty}"
    return Training(f"{name}_sigma_{smoothing}" if smoothing else name, changes, _ALIGNED)


def _chosen(
    setting: Setting,
    name: str = "exits",
    changes: dict[str, Any] | None = None,
    start: Training = _ALIGNED,
) -> Training:
    """Returns the second phase of its config, with some changes."""
    own = {"exit.oracle_smoothing": 0.0} | setting.second_phase() | (changes or {})
    return Training(name, own, start)


def _exits(setting: Setting) -> list[Point]:
    """Section 4.2: the chosen head, then each kind of exit with each oracle."""
    chosen, every = _chosen(setting), (*setting.fixed, "uniform:0")
    grids = {"likelihood": (0.05, 0.02, 0.2), "correctness": (0.1, 0.05, 0.3)}
    own = {"token_geometric": _TUNED_RULES[0], "token_multinomial": "token_multinomial"}
    points = [Point(chosen, (*every, *_TUNED_RULES)), Point(_ALIGNED, (*every, _TUNED_RULES[1]))]
    for number, of_sentences in enumerate((0.02, 0.0, 0.1)):
        for smoothing in (0.0, 2.0):
            for kind, policy in own.items():
                for oracle, penalties in grids.items():
                    head = _head(setting, kind, oracle, penalties[number], smoothing)
                    points.append(Point(head, (*setting.ends, policy)))
        kind = "sequence_multinomial"
        for oracle in grids:
            head = _head(setting, kind, oracle, of_sentences, 0.0)
            points.append(Point(head, (*setting.ends, kind)))
    repeated = [x for x in points[1:] if x.training.changes == chosen.changes]
    return [point for point in points if point not in repeated]


def _heads(setting: Setting) -> list[Point]:
    """Heads alone, on the frozen aligned model: oracles, and halting units with a hidden layer."""
    points = [Point(_ALIGNED, (*setting.fixed, _TUNED_RULES[1]))]
    for hidden in (0, 64):
        for oracle, penalty in {"likelihood": 0.05, "agreement": 0.0}.items():
            changes = _head(setting, "token_geometric", oracle, penalty, 0.0).changes
            changes |= {"exit.trains": "head_alone", "model.halting_hidden": hidden}
            alone = Training(f"head_alone_{oracle}_hidden_{hidden}", changes, _ALIGNED)
            points.append(Point(alone, (*setting.fixed, _TUNED_RULES[0])))
    return points


def _ablation(setting: Setting) -> list[Point]:
    """Figure 5: average exits for several lambda and sigma, at a threshold of 0.5, on `valid`."""
    policies = (*setting.ends, "token_geometric:0.5")
    return [
        Point(_head(setting, "token_geometric", "likelihood", x, sigma), policies, ("valid",))
        for sigma in (0.0, 2.0, 8.0)
        for x in (0.05, 0.2, 0.0, 0.1)
    ]


def _lifts(setting: Setting) -> list[Point]:
    """Trainings that may improve low exits, compared with the paper's aligned training."""
    changes = {
        _FROM_ABOVE.name: _FROM_ABOVE.changes,
        "layer_drop_0.1": {"model.layer_drop": 0.1},
        "layer_drop_rising_0.2": {"model.layer_drop": 0.2, "model.layer_drop_rates": "rising"},
        "from_above_0": {"training.gradient_from_above": 0.0},
    }
    return [_all_exits(setting), *(_all_exits(setting, *change) for change in changes.items())]


def _time(setting: Setting) -> list[Point]:
    """Quality against time: models cut at each exit and with exit rules as tuning finds them, rules
    with shortlists and gaps; and shallow baselines.

    The models are that of the chosen head, with all rules; the same with a hidden layer in its
    halting units; and that with less gradient from above too.
    """
    compared = setting.layers > Similarity.first
    kinds = [kind for kind in KINDS if compared or kind != Similarity.kind]
    tuned = (f"{TUNED}:{kind}" for kind in kinds)
    hidden = {"model.halting_hidden": 64}
    above = hidden | _FROM_ABOVE.changes
    others = (
        _chosen(setting, "exits_hidden_64", hidden),
        _chosen(setting, "exits_from_above_0.5", above, _FROM_ABOVE),
    )
    timed = [Point(_chosen(setting), (*setting.fixed, "uniform:0", *tuned), ("test",), _FAST)]
    timed += [Point(x, (*setting.fixed, *_TUNED_RULES), ("test",), _FAST) for x in others]
    baselines = (_baseline(depth) for depth in range(1, setting.layers + 1))
    return [*timed, *(point._replace(splits=("test",)) for point in baselines)]


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
    """A little of everything, too small to learn anything: a check that all works."""
    aligned = Training("aligned", _SMALL)
    exits = Training("exits", setting.second_phase() | _SMALL, aligned)
    layers = {"model.decoder_layers": 2, "model.exits": "last"}
    return [
        Point(exits, (*setting.ends, _TUNED_RULES[0]), ("test",)),
        Point(Training("baseline_2", _SMALL | layers), ("fixed:2",), ("test",)),
        Point(aligned, (*setting.ends, "uniform:0"), ("valid",)),
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
