# SPDX-License-Identifier: Apache-2.0
"""From lines of text and their given translations to scores, in the same order.

Lines are read a window at a time, so that memory does not depend on how many there are.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from dat_jax.config import DecodingConfig
from dat_jax.data.vocabulary import Vocabularies, is_blank
from dat_jax.decoding.rule_settings import check_rule_settings
from dat_jax.decoding.sizing import platform_of
from dat_jax.decoding.trained import TrainedModel
from dat_jax.decoding.translator import cut_source
from dat_jax.decoding.windows import progress_bar, read_window
from dat_jax.errors import UserError
from dat_jax.evaluation.forced import Forced, force, longest
from dat_jax.exits.parsing import Policy

Pair = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Scored:
    """A given translation; without tokens if its line is blank, or does not fit into memory."""

    pieces: tuple[str, ...]  # EOS included
    token_ll: np.ndarray  # [X, T] log-likelihood of each piece at each exit
    exits: tuple[int, ...]  # the depth at which the rule lets each piece exit

    def at_exits(self, first: int) -> float:
        """Returns the log-probability by the exits of the pieces; `first` is the lowest exit."""
        places = np.asarray(self.exits, int) - first
        return float(self.token_ll[places, np.arange(len(places))].sum(dtype=np.float64))


@dataclasses.dataclass(frozen=True)
class Window:
    """The scores of some lines, and what it took."""

    lines: tuple[Scored, ...]
    seconds: float
    cut: int  # sources that were cut to max_source_length
    too_long: tuple[str, ...]  # a warning for each line that does not fit into memory


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A trained model with a policy and settings, ready to score text."""

    trained: TrainedModel
    policy: Policy
    decoding: DecodingConfig

    def __post_init__(self) -> None:
        """Checks that the policy takes the settings.

        Raises:
            UserError: it does not.
        """
        size = self.trained.model.target_vocabulary_size
        check_rule_settings(self.decoding, self.policy.rule, size)

    def stream(
        self,
        pairs: Iterable[Pair],
        total: int | None = None,
        arrives_within: Callable[[float], bool] = lambda _: True,
        done: int = 0,
    ) -> Iterator[Window]:
        """Scores pairs as they are read, a window at a time; see `Translator.stream`.

        A pair with two blank lines has no tokens. The translation of a line with text may be blank:
        it is EOS alone.
        """
        pairs = iter(pairs)
        size = platform_of(self.trained.device).window * len(self.trained.devices)
        most = longest(self.trained)
        with progress_bar("scoring", total, done) as bar:
            while window := read_window(pairs, size, arrives_within):
                yield self._score_window(window, done, most)
                done += len(window)
                bar.update(len(window))

    def _score_window(self, pairs: list[Pair], done: int, most: int) -> Window:
        """Scores pairs of up to `most` pieces a side, before which `done` were scored."""
        started = time.monotonic()
        whole = self._vocabularies.source.encode([source for source, _ in pairs])
        targets = self._vocabularies.target.encode([target for _, target in pairs])
        sources = [cut_source(ids, self.decoding) for ids in whole]
        lengths = [max(len(s), len(t)) for s, t in zip(sources, targets, strict=True)]
        scored = [
            index
            for index, (source, target) in enumerate(zip(sources, targets, strict=True))
            if lengths[index] <= most and not (is_blank(source) and is_blank(target))
        ]
        forced = force(
            self.trained,
            self.policy.rule,
            [sources[index] for index in scored],
            [targets[index] for index in scored],
            self.decoding,
            numbers=[done + index for index in scored],
        )
        lines = [self._nothing] * len(pairs)
        for index, one in zip(scored, forced, strict=True):
            lines[index] = self._scored(targets[index], one)
        return Window(
            tuple(lines),
            time.monotonic() - started,
            sum(len(ids) < len(all_ids) for ids, all_ids in zip(sources, whole, strict=True)),
            tuple(
                f"line {done + number} has {length:,} pieces and is not scored, for {most:,} fit "
                "into memory: split it"
                for number, length in enumerate(lengths, 1)
                if length > most
            ),
        )

    def _scored(self, target: list[int], forced: Forced) -> Scored:
        pieces = tuple(self._vocabularies.target.pieces(target))
        return Scored(pieces, forced.token_ll, tuple(forced.exits.tolist()))

    @property
    def _nothing(self) -> Scored:
        exits = len(self.trained.model.config.exit_depths)
        return Scored((), np.zeros((exits, 0), np.float32), ())

    @property
    def _vocabularies(self) -> Vocabularies:
        if self.trained.vocabularies is None:
            raise UserError("the model has no vocabularies: it cannot score text")
        return self.trained.vocabularies
